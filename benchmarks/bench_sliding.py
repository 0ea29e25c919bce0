"""Prediction by windows: of a volume, of an exam's files, and without a network.

Set BMJAX_BENCH_CASE to the folder of one BraTS case to measure an exam on it; without
it a case of the same size is drawn.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.bench_preprocess import Files, case_and_plan
from benchmarks.nets import CHANNELS, NUM_CLASSES, PLAIN, TINY, Net
from benchmarks.timing import Work

PEERS = ("monai", "nnunet")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume and the network that slides over it.

    Attributes:
      size: of the volume [vox].
      net: its patch is the window, its batch the windows computed together; None for
        a network that does nothing.
      window: of a network that does nothing [vox].
      flips: average over all mirrored copies of each window, or none.
    """

    size: tuple[int, int, int]
    net: Net | None
    window: tuple[int, int, int]
    flips: Literal["none", "all"] = "none"

    def draw(self) -> np.ndarray:
        """Noise, z y x c."""
        return np.random.default_rng(0).standard_normal(
            (*self.size, CHANNELS), np.float32
        )


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Four files that become a label file, and the network between.

    Attributes:
      files: the exam, and the spacing of the network.
      net: its patch is the window.
      flips: average over all mirrored copies of each window, or none.
    """

    files: Files
    net: Net
    flips: Literal["none", "all"] = "none"
    peers: tuple[str, ...] = ("nnunet",)


_WINDOW, _NARROW = (64, 64, 64), (16, 32, 64, 128)
_NET = replace(PLAIN, batch_size=1, features=_NARROW)
_TINY = replace(TINY, batch_size=1)
_CUBE = Volume(size=(128, 128, 128), net=_NET, window=_WINDOW)
CASES = {
    "PlainUNet(16..128) on 128x128x128": _CUBE,
    "PlainUNet(16..128) on 128x128x128, flips": replace(_CUBE, flips="all"),
    "PlainUNet(16..128), an exam at 1 mm": Exam(
        files=Files(spacing_mm=(1.0, 1.0, 1.0)), net=_NET
    ),
    "no network on 160x192x160": Volume(size=(160, 192, 160), net=None, window=_WINDOW),
}
LARGE = {
    "PlainUNet(32..320) on 160x192x160": Volume(
        size=(160, 192, 160),
        net=replace(PLAIN, patch_size=(128, 128, 128)),
        window=(128, 128, 128),
    )
}
QUICK = {
    "tiny": Volume(size=(12, 8, 8), net=_TINY, window=(8, 8, 8)),
    "tiny, flips": Volume(size=(12, 8, 8), net=_TINY, window=(8, 8, 8), flips="all"),
    "no network": Volume(size=(12, 8, 8), net=None, window=(8, 8, 8)),
    "an exam": Exam(
        files=Files(spacing_mm=(1.0, 1.0, 1.0), size=(16, 18, 20)), net=_TINY
    ),
}


def ours(case: Volume | Exam, *, scratch: Path) -> Work:
    return _exam(case, scratch) if isinstance(case, Exam) else _volume(case)


def model_of(exam: Exam, scratch: Path):
    """A run of the exam's network and plan, as a value, with drawn parameters."""
    import jax

    from benchmarks import programs
    from bmjax.experiment import Experiment
    from bmjax.runs import Run

    case, plan, facts = case_and_plan(exam.files, scratch)
    model = programs.model_of(exam.net)
    shapes = jax.eval_shape(
        model.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *exam.net.patch_size, CHANNELS), np.float32),
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: 0.1 * rng.standard_normal(x.shape, np.float32), shapes
    )
    stages = len(exam.net.features)
    topology = {
        "features": exam.net.features,
        "strides": ((1, 1, 1), *((2, 2, 2),) * (stages - 1)),
        "kernel_sizes": ((3, 3, 3),) * stages,
    }
    plan = replace(plan, patch_size=exam.net.patch_size, **topology)
    model = model.clone(**topology)
    return case, Run(Experiment(model=model).resolve(plan), plan, 0, variables), facts


def _exam(exam: Exam, scratch: Path) -> Work:
    import jax
    from jax.tree_util import Partial

    from benchmarks import programs
    from bmjax.compilation import return_memory
    from bmjax.inference import SlidingWindow, predict_cases
    from bmjax.sharding import split_cpu
    from bmjax.transplant import write_torch

    split_cpu()
    return_memory()
    case, run, facts = model_of(exam, scratch)
    if not (scratch / "model").exists():
        write_torch(scratch / "model", run)  # for the peer, with the same weights
    function = programs.output_of(run.experiment.model)
    forward = Partial(function, jax.tree.map(jax.numpy.asarray, run.variables))
    settings = SlidingWindow(flips=exam.flips, empty="each")

    def call() -> None:
        (result,) = predict_cases(
            forward,
            [case],
            run.plan,
            scratch / "ours",
            settings=settings,
            overwrite=True,
            devices=jax.devices(),
        )
        assert result.error is None, result.error

    def before() -> None:
        for path in (scratch / "ours").glob("*"):
            path.unlink()  # finished cases are kept otherwise

    num_params = programs.count(run.variables["params"])
    return Work(call=call, before=before, facts=facts | {"num_params": num_params})


def _volume(volume: Volume) -> Work:
    import jax
    from jax.tree_util import Partial

    from benchmarks import programs
    from bmjax.compilation import return_memory
    from bmjax.inference import SlidingWindow, sliding_logits, windows
    from bmjax.sharding import split_cpu

    split_cpu()  # as `bmjax predict` does, both
    return_memory()
    forward, num_params, gflop = Partial(_first_channels), None, None
    count = windows.num_windows(volume.size, volume.window)
    passes = SlidingWindow(flips=volume.flips).num_mirrors(volume.window)
    if volume.net is not None:
        model = programs.model_of(volume.net)
        image = jax.ShapeDtypeStruct((1, *volume.window, CHANNELS), np.float32)
        variables = jax.jit(model.init)(
            jax.random.key(0), np.zeros(image.shape, image.dtype)
        )
        function = programs.output_of(model)
        forward = Partial(function, variables)
        num_params = programs.count(variables["params"])
        gflop = count * passes * programs.gflop(function, variables, image)
    image = volume.draw()

    def call() -> None:
        sliding_logits(
            forward,
            image,
            window=volume.window,
            num_classes=NUM_CLASSES,
            settings=SlidingWindow(
                flips=volume.flips,
                batch_size=volume.net.batch_size if volume.net else 1,
                empty="each",  # the peers skip nothing
            ),
            devices=jax.devices(),
        )

    facts = {"windows": count, "num_params": num_params}
    return Work(call=call, gflop=gflop, facts=facts)


def _first_channels(x):
    return x[..., :NUM_CLASSES]
