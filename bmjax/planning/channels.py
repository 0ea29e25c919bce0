"""How the channels of a data set are normalised: nnU-Net's schemes, by name."""

NORMALIZATIONS = {
    "zscore": "ZScoreNormalization",
    "ct": "CTNormalization",
    "none": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
_SCHEME_OF_CHANNEL = {"ct": "ct", "nonorm": "none"}  # others by their own name


def normalization_of(channel: str) -> str:
    """The scheme that a channel's name asks for; z-score unless it is known."""
    name = channel.casefold()
    scheme = _SCHEME_OF_CHANNEL.get(name, name)
    return scheme if scheme in NORMALIZATIONS else "zscore"
