"""A network of a user's own: what an Experiment takes besides ours."""

import flax.linen as nn


class TwoConvs(nn.Module):
    """Two convolutions.

    Attributes:
      num_classes: regions or classes; None is taken from the plan.
      width: channels in between.
    """

    num_classes: int | None = None
    width: int = 4

    @nn.compact
    def __call__(self, image, *, is_training=False):
        x = nn.relu(nn.Conv(self.width, (3,) * (image.ndim - 2), name="stem")(image))
        return (
            nn.Conv(self.num_classes or 1, (1,) * (image.ndim - 2), name="head")(x),
        )
