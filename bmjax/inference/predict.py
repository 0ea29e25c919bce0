"""Label files for many cases, one after the other, whatever happens to one of them.

The next case is read and the one before is written beside the computation. A case that
cannot be read or written fails alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bmjax.data.cases import Case
from bmjax.data.geometry import Geometry
from bmjax.data.preprocess import Prepared, preprocess
from bmjax.device_memory import memory_explained
from bmjax.inference.export import LABELS_ALONE, export_case
from bmjax.inference.outputs import Outputs
from bmjax.inference.record import CaseResult, Record, model_digest, path_of
from bmjax.inference.sliding import (
    HALF_OVERLAP,
    Forward,
    fold_logits,
    sliding_logits,
)
from bmjax.inference.windows import SlidingWindow
from bmjax.locks import held
from bmjax.planning.plan import Plan

CASE_ERRORS = (ValueError, OSError)  # faults of one case; anything else stops the run
_REMEDY = "lower --batch-size, or take fewer networks at a time (--folds)"
Tick = Callable[[int, int, str], None]


def predict_cases(
    forward: Forward,
    cases: Sequence[Case],
    plan: Plan,
    out: Path,
    *,
    settings: SlidingWindow = HALF_OVERLAP,
    outputs: Outputs = LABELS_ALONE,
    num_folds: int | None = None,
    unusable: Mapping[str, str] | None = None,
    model: str | None = None,
    overwrite: bool = False,
    allow_missing: bool = False,
    devices: Sequence[Any] | None = None,
    progress: Tick | None = None,
) -> list[CaseResult]:
    """Write OUT/CASE.nii.gz for each case, what else was asked for, and predict.json.

    Called again with the same network, plan and settings, it keeps what is finished and
    does the rest; failed cases are tried again.

    Args:
      forward: the network: a batch of windows to the logits of the plan's regions; see
        `sliding_logits`.
      cases: what to predict; their labels are not read.
      plan: how the network's training cases were prepared.
      out: folder of the label files.
      settings: the sliding window.
      outputs: what is written beside the label file.
      num_folds: networks in `forward`, if it is from `stack_folds`.
      unusable: cases asked for that were found incomplete, with the reason; they are
        recorded as failed.
      model: names the weights; by default a digest of those in `forward`.
      overwrite: replace what another network, plan or setting left in the folder.
      allow_missing: take channels that a case lacks as zero, as a network trained with
        dropped channels knows it, and say so among the case's warnings.
      devices: share the windows of a case; None takes the first one.
      progress: called with cases done, cases in all, and the case at hand.

    Returns:
      One result per case, those that are unusable last; a failed one has an error.

    Raises:
      ValueError: two cases share an id, or the folder holds other predictions.
    """
    out = Path(out)
    with held(out, doing="predicting", otherwise="choose another --out"):
        record = Record.open(
            out,
            cases=cases,
            unusable=unusable or {},
            model=model or model_digest(forward),
            plan=plan,
            settings=settings,
            outputs=outputs,
            overwrite=overwrite,
        )
        todo = [case for case in cases if record.is_pending(case.id)]
        total = record.num_cases()

        def settle(result: CaseResult) -> None:
            record.settle(result)
            tick(result.case)

        def tick(name: str) -> None:
            if progress is not None:
                progress(record.num_settled(), total, name)

        def logits_of(prepared: Prepared) -> Float[np.ndarray, "f z y x k"]:
            arguments = {
                "window": plan.patch_size,
                "num_classes": plan.num_classes,
                "settings": settings,
                "num_folds": num_folds,
                "devices": devices,
            }
            with memory_explained("a batch of windows", _REMEDY):
                if outputs.needs_folds():
                    return fold_logits(forward, prepared.image, **arguments)
                return sliding_logits(forward, prepared.image, **arguments)[None]

        writing: Future[CaseResult] | None = None
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            try:
                for loaded in _one_ahead(
                    reader, todo, plan=plan, out=out, allow_missing=allow_missing
                ):
                    tick(loaded.result.case)
                    if loaded.prepared is None:
                        settle(loaded.result)
                        continue
                    start = time.monotonic()
                    logits = logits_of(loaded.prepared)
                    seconds = loaded.result.seconds + time.monotonic() - start
                    result = replace(loaded.result, seconds=seconds)
                    geometry = loaded.prepared.geometry
                    del loaded  # its image is not needed any more
                    if writing is not None:
                        settle(writing.result())
                    writing = writer.submit(
                        _export, result, logits, geometry, plan, outputs
                    )
                    del logits
            finally:
                if writing is not None:
                    settle(writing.result())
        return record.results()


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A case read and prepared, or the result that says why it was not."""

    result: CaseResult
    prepared: Prepared | None = None


def _one_ahead(
    reader: Executor,
    cases: Sequence[Case],
    *,
    plan: Plan,
    out: Path,
    allow_missing: bool,
) -> Iterator[_Loaded]:
    """Prepared cases, the next being read while one is used."""

    def start(case: Case) -> Future[_Loaded]:
        result = CaseResult(case=case.id, path=path_of(out, case.id))
        return reader.submit(_load, result, case, plan, allow_missing)

    coming = [start(case) for case in cases[:1]]
    for case in cases[1:]:
        loaded = coming.pop().result()
        coming.append(start(case))
        yield loaded
    for last in coming:
        yield last.result()


def _load(result: CaseResult, case: Case, plan: Plan, allow_missing: bool) -> _Loaded:
    start = time.monotonic()
    try:
        if not (allow_missing and case.images):
            _require_channels(case, plan)
        prepared = _prepare_present(replace(case, labels=None), plan)
    except CASE_ERRORS as error:
        seconds = time.monotonic() - start
        return _Loaded(result=replace(result, error=str(error), seconds=seconds))
    seconds = time.monotonic() - start
    warnings = prepared.warnings
    if len(plan.patch_size) == 3 and 1 in prepared.geometry.size:
        warnings += (
            "a single slice, where the network was trained on volumes: do not rely on "
            "its result",
        )
    result = replace(result, seconds=seconds, warnings=warnings)
    return _Loaded(result=result, prepared=prepared)


def _prepare_present(case: Case, plan: Plan) -> Prepared:
    """A case on the plan's grid; a channel that it lacks is zero everywhere."""
    missing = [channel for channel in plan.channels if channel not in case.images]
    if not missing:
        return preprocess(case, plan)
    # another channel stands in, so that the case is read and cropped as ever
    stand_in = next(iter(case.images.values()))
    images = {channel: case.images.get(channel, stand_in) for channel in plan.channels}
    prepared = preprocess(replace(case, images=images), plan)
    image = np.array(prepared.image)
    image[..., [plan.channels.index(channel) for channel in missing]] = 0
    warning = f"{', '.join(missing)} missing, taken as zero"
    return replace(prepared, image=image, warnings=(*prepared.warnings, warning))


def _require_channels(case: Case, plan: Plan) -> None:
    missing = [channel for channel in plan.channels if channel not in case.images]
    if missing:
        files = ", ".join(f"{case.id}-{channel}.nii.gz" for channel in missing)
        raise ValueError(
            f"{case.id}: {', '.join(missing)} missing, expected as {files}; the "
            f"network needs {', '.join(plan.channels)}; one trained with "
            "augment.p_drop_channel can do without (--allow-missing)"
        )


def _export(
    result: CaseResult,
    logits: Float[np.ndarray, "f z y x k"],
    geometry: Geometry,
    plan: Plan,
    outputs: Outputs,
) -> CaseResult:
    start = time.monotonic()
    try:
        made = export_case(logits, geometry, plan, result.path, outputs=outputs)
        result = replace(
            result,
            volumes_ml=made.volumes_ml,
            files=made.files,
            warnings=(*result.warnings, *made.remarks),
        )
    except CASE_ERRORS as reason:
        for left in outputs.files(result.path, [name for name, _ in plan.regions]):
            left.unlink(missing_ok=True)
        result = replace(result, error=str(reason))
    return replace(result, seconds=result.seconds + time.monotonic() - start)
