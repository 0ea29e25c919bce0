"""The public packages that define the metrics, one after the other on one case.

surface-distance (HD95, HD, ASSD, surface Dice), brats-evaluation (lesion-wise Dice,
HD95, NSD by its `mets` configuration) and panoptica's default (RQ, SQ, PQ, ASSD), for
the three regions. Together they give the part of `bmjax evaluate` that is costly.
"""

import contextlib
import io
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.bench_metrics import Scored
from benchmarks.nets import REGIONS
from benchmarks.timing import Work


def metrics(scored: Scored, *, setting: str, scratch: Path) -> Work:
    import surface_distance
    from panoptica import Panoptica_Evaluator

    config = files("brats_evaluation").joinpath("configs", "config_mets.yaml")
    lesionwise = Panoptica_Evaluator.load_from_config(str(config))
    panoptic = Panoptica_Evaluator.load_from_config("panoptica_evaluator_default")
    prediction, reference = (v.astype(np.uint8) for v in scored.draw())
    options = {"voxelspacing": scored.spacing_mm}

    def call() -> None:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            lesionwise.evaluate(prediction, reference, **options)["et"].to_dict(True)
            for _, labels in REGIONS:
                masks = [np.isin(v, labels) for v in (prediction, reference)]
                whole = [m.astype(np.uint8) for m in masks]
                panoptic.evaluate(*whole, **options)["ungrouped"].to_dict()
                found = surface_distance.compute_surface_distances(
                    masks[1], masks[0], scored.spacing_mm
                )
                surface_distance.compute_robust_hausdorff(found, 95)
                surface_distance.compute_robust_hausdorff(found, 100)
                surface_distance.compute_average_surface_distance(found)
                surface_distance.compute_surface_dice_at_tolerance(found, 1.0)

    return Work(call=call)
