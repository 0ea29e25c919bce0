"""A look at held-out patches: loss, pseudo-Dice (nnU-Net), and one picture."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from bmjax.training.cost import Meter
from bmjax.training.pictures import picture
from bmjax.training.state import TrainState


def validation(
    look: Callable[[Any, Any], dict[str, Any]],
    batches: Callable[[], Iterable[Mapping[str, np.ndarray]]],
    *,
    put: Callable[[Any], Any],
    regions: tuple[str, ...],
    batch_size: int,
    show: Callable[[np.ndarray, int], None],
    volume_dice: Callable[[TrainState], dict[str, float]] | None = None,
) -> Callable[[TrainState], dict[str, Any]]:
    """Build `validate(state)` on the same patches each time.

    Args:
      look: compiled from `make_validation_step`.
      batches: the held-out patches, anew.
      put: places a host batch on the devices.
      regions: names of the output channels.
      batch_size: samples of a batch, over all processes.
      show: takes a picture of the first patch (y x rgb) and the step.
      volume_dice: Dice of whole held-out cases by region; None leaves them out.
    """

    def validate(state: TrainState) -> dict[str, Any]:
        meter, begin = Meter(batch_size), time.perf_counter()
        found: list[dict[str, Any]] = []
        stream = iter(batches())
        while True:
            with meter.waiting():
                batch = next(stream, None)
            if batch is None:
                break
            placed = put({name: batch[name] for name in ("image", "labels")})
            result = look(state.averaged, placed)
            predicted = result.pop("predicted")
            if not found:
                shown = picture(
                    batch["image"][0], batch["labels"][0], np.asarray(predicted)
                )
                show(shown, int(state.step))
            found.append(jax.device_get(result))
            meter.step()
        tp, fp, fn = (sum(x[kind] for x in found) for kind in ("tp", "fp", "fn"))
        # a region that is nowhere, neither in truth nor in prediction, agrees
        dice = np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), 1.0)
        of_volumes = {} if volume_dice is None else {"volume_dice": volume_dice(state)}
        return {
            "loss": float(np.mean([x["loss"] for x in found])),
            "pseudo_dice": dict(zip(regions, dice.tolist(), strict=True)),
            **of_volumes,
            "took_ms": 1e3 * (time.perf_counter() - begin),
            **meter.read(),
        }

    return validate
