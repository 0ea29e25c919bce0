"""nnU-Net's plans, fingerprints and data-set files, read and written."""

import json

import pytest

from bmjax.planning import BRATS_METS, Plan, make_plan, nnunet
from bmjax.planning.channels import normalization_of

DATASET = {
    "channel_names": {"0": "T1C", "1": "T1N", "2": "T2F", "3": "T2W"},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
FINGERPRINT = {
    "spacings": [[1.0, 1.0, 1.0]] * 3,
    "shapes_after_crop": [[140, 170, 130], [144, 181, 142], [150, 190, 144]],
    "median_relative_size_after_cropping": 0.41,
    "foreground_intensity_properties_per_channel": {
        str(i): {
            "mean": 1.0,
            "median": 1.0,
            "std": 0.5,
            "min": 0.0,
            "max": 2.0,
            "percentile_00_5": 0.1,
            "percentile_99_5": 1.9,
        }
        for i in range(4)
    },
}


def test_the_brats_data_set_is_our_preset():
    assert nnunet.read_scheme(DATASET) == BRATS_METS
    assert nnunet.read_channels(DATASET) == ("t1c", "t1n", "t2f", "t2w")


def test_plain_labels_become_regions_of_one_label():
    scheme = nnunet.read_scheme(
        {"labels": {"background": 0, "lesion": 1, "vessel": 2, "ignore": 3}}
    )
    assert scheme.labels == (("lesion", 1), ("vessel", 2))
    assert scheme.regions == (("lesion", (1,)), ("vessel", (2,)))
    assert scheme.paint == (1, 2)


def test_regions_without_an_order_are_refused():
    dataset = {"labels": {"background": 0, "WT": [1, 2], "ET": 1}}
    with pytest.raises(ValueError, match="need a regions_class_order"):
        nnunet.read_scheme(dataset)


def test_eleven_channels_come_in_the_order_of_their_numbers():
    names = {str(i): f"C{i}" for i in reversed(range(11))}
    assert nnunet.read_channels({"channel_names": names})[9:] == ("c9", "c10")


@pytest.mark.parametrize(
    ("channel", "scheme"),
    [("CT", "ct"), ("noNorm", "none"), ("T1C", "zscore"), ("zscore", "zscore")],
)
def test_a_channel_name_chooses_the_normalization(channel, scheme):
    assert normalization_of(channel) == scheme


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_their_plan_of_a_fingerprint_is_our_plan_of_it(configuration):
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET)
    read = nnunet.read_plan(theirs, DATASET, configuration=configuration)
    ours = make_plan(
        nnunet.read_fingerprint(FINGERPRINT, DATASET), configuration=configuration
    )
    assert read.orientation == "stored"
    assert read == Plan.from_dict(ours.to_dict() | {"orientation": "stored"})


def test_a_reader_that_reorients_means_ras():
    theirs = nnunet.plan_from_nnunet(
        FINGERPRINT,
        DATASET | {"overwrite_image_reader_writer": "NibabelIOWithReorient"},
    )
    assert nnunet.read_plan(theirs, DATASET).orientation == "RAS"


def test_residual_plans_name_their_network_and_blocks():
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET, preset="resenc_l")
    assert theirs["plans_name"] == "nnUNetResEncUNetLPlans"
    found = nnunet.read_architecture(theirs, "3d_fullres")
    assert found.name == "ResidualEncoderUNet"
    assert found.encoder_blocks == (1, 3, 4, 6, 6, 6)
    assert found.decoder_blocks == (1,) * 5
    identifier = theirs["configurations"]["3d_fullres"]["data_identifier"]
    assert identifier == "nnUNetPlans_3d_fullres"


def test_only_the_z_score_is_taken_inside_the_mask():
    dataset = DATASET | {"channel_names": {"0": "CT", "1": "T1N"}}
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, dataset)
    found = theirs["configurations"]["3d_fullres"]
    assert found["normalization_schemes"] == ["CTNormalization", "ZScoreNormalization"]
    assert found["use_mask_for_norm"] == [False, True]


def test_written_plans_are_json():
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET)
    assert json.loads(json.dumps(theirs)) == theirs


def test_a_configuration_that_is_not_there_is_named():
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET)
    with pytest.raises(ValueError, match="no configuration '3d_lowres'; they hold 2d"):
        nnunet.read_plan(theirs, DATASET, configuration="3d_lowres")


def test_a_cascade_is_refused():
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET)
    theirs["configurations"]["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
    with pytest.raises(ValueError, match="cascade, which is not supported"):
        nnunet.read_plan(theirs, DATASET, configuration="3d_cascade_fullres")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_reader_writer": "Tiff3DIO"}, "image reader 'Tiff3DIO' is not known"),
        ({"normalization_schemes": ["Mine"] * 4}, r"normalization \['Mine'\]"),
    ],
)
def test_unknown_readers_and_normalizations_are_refused(change, message):
    theirs = nnunet.plan_from_nnunet(FINGERPRINT, DATASET)
    full = theirs["configurations"]["3d_fullres"]
    for key, value in change.items():
        (theirs if key in theirs else full)[key] = value
    with pytest.raises(ValueError, match=message):
        nnunet.read_plan(theirs, DATASET)
