"""Scores one case, from its files to its rows."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bmjax.data import grids, nifti
from bmjax.data.reading import Reading
from bmjax.data.regrid import onto_grid
from bmjax.data.soundness import count_labels, label_fault
from bmjax.evaluation.pairing import Expected, file_of
from bmjax.evaluation.prediction import read_prediction
from bmjax.metrics import case, conventions
from bmjax.metrics.detection import Confidences
from bmjax.planning.labels import LabelScheme


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What came out of one case.

    Attributes:
      row: of cases.csv.
      lesions: rows of lesions.csv.
      confidences: of lesions and false candidates, by region with probabilities.
      files: prediction, reference and images.
    """

    row: dict[str, Any]
    lesions: list[dict[str, Any]]
    confidences: dict[str, Confidences]
    files: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How cases are scored; can be sent to another process.

    Attributes:
      scheme: labels and regions.
      both_empty: Dice, IoU, sensitivity and precision where both masks are empty.
      tolerances_mm: of the surface Dice [mm].
    """

    scheme: LabelScheme
    both_empty: float
    tolerances_mm: tuple[float, ...]

    @cached_property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Regions of the scheme, then those of its labels that are no region."""
        regions = dict(self.scheme.regions)
        names = {name: (value,) for name, value in self.scheme.labels}
        return regions | {n: v for n, v in names.items() if n not in regions}

    def __call__(self, task: tuple[Expected, Path]) -> Scores:
        """Score a case.

        Args:
          task: the case, and where its predicted labels are.

        Raises:
          FileNotFoundError: there is no prediction.
          ValueError: the case cannot be compared.
        """
        expected, path = task
        if path.name == f"{expected.case}.nii.gz":
            path = file_of(path.parent, expected.case)  # or without .gz
        reference = nifti.read_labels(expected.labels)
        predicted = read_prediction(
            path, expected.case, scheme=self.scheme, reference=reference
        )
        prediction = predicted.labels
        reference = _as_taken(reference, expected.reading, prediction)
        for scan in (prediction, *predicted.probs.values()):
            _require_same_grid(expected.case, scan, reference)
        for scan in (prediction, reference):
            self._require_known(expected.case, scan)
        comparison = case.compare(
            prediction.array,
            reference.array,
            regions=self.regions,
            lesion_regions=tuple(dict(self.scheme.regions)),
            spacing_mm=reference.spacing_mm,
            probs={name: scan.array for name, scan in predicted.probs.items()},
            both_empty=self.both_empty,
            tolerances_mm=self.tolerances_mm,
        )
        return Scores(
            row={
                "case": expected.case,
                **expected.columns,
                "is_prediction_empty": not prediction.array.any(),
                **self._columns(comparison),
            },
            lesions=[
                _placed(expected.case, lesion, reference.affine)
                for lesion in comparison.lesions
            ],
            confidences=comparison.confidences,
            files={
                "prediction": str(prediction.path.resolve()),
                "reference": str(expected.labels.resolve()),
                "images": {c: str(p.resolve()) for c, p in expected.images.items()},
            },
        )

    def _columns(self, comparison: case.Comparison) -> dict[str, float | int]:
        return {
            f"{metric}_{name}": measured[metric]
            for metric in conventions.metric_names(self.tolerances_mm)
            for name, measured in comparison.measures.items()
            if metric in measured
        }

    def _require_known(self, case_id: str, scan: nifti.Scan) -> None:
        known = sorted({v for values in self.regions.values() for v in values})
        fault = label_fault(count_labels(scan.array), known)
        if fault:
            raise ValueError(f"{case_id}: {scan.path.name}: {fault}")


def _as_taken(
    reference: nifti.Scan, reading: Reading, prediction: nifti.Scan
) -> nifti.Scan:
    """Reference labels as the case's reading takes them."""
    reference = replace(reference, array=reading.map_labels(reference.array))
    if reading.resample_to is None:
        return reference
    grid = (prediction.array.shape, prediction.affine)
    return onto_grid(reference, grid, is_labels=True)[0]


def _require_same_grid(
    case_id: str, prediction: nifti.Scan, reference: nifti.Scan
) -> None:
    size, expected = prediction.array.shape, reference.array.shape
    if size != expected:
        raise ValueError(
            f"{case_id}: {prediction.path.name} has {size} voxels (z, y, x), the "
            f"reference {expected}; predict on the grid of the reference"
        )
    z, y, x = expected
    shift_vox = grids.max_shift_vox(reference.affine, prediction.affine, (z, y, x))
    if shift_vox > grids.MAX_SHIFT_VOX:
        raise ValueError(
            f"{case_id}: the affines of {prediction.path.name} and of the reference "
            f"move a corner of the volume {shift_vox:.2f} voxels apart (at most "
            f"{grids.MAX_SHIFT_VOX}); predict on the grid of the reference"
        )


def _placed(
    case_id: str, lesion: dict[str, Any], affine: Float[np.ndarray, "4 4"]
) -> dict[str, Any]:
    """The row of a lesion, its place in world coordinates."""
    z, y, x = lesion.pop("centre_vox")
    centre_mm = affine @ [x, y, z, 1.0]
    place = {f"centre_{a}_mm": float(centre_mm[i]) for i, a in enumerate("xyz")}
    return {"case": case_id, **lesion, **place}
