"""Parameters from one network's run or weight file into another's, and out again.

Foreign weight files come in by `Origin.from_torch` alone: no other door opens them.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bmjax.models import Network
from bmjax.nnunet_model import describe, names_in, read_model, write_model_folder
from bmjax.planning import Plan
from bmjax.runs import Run, read_run, write_run
from bmjax.surgery import (
    ChannelMap,
    ClassMap,
    GraftReport,
    Surgery,
    flatten,
    from_torch,
    graft,
    to_torch,
    unflatten,
)
from bmjax.weights import SUFFIXES, read_weights, write_weights

# what a safetensors file of ours says of itself
_PLAN_KEY = "bmjax_plan"
_COMPARED = ("spacing_mm", "orientation", "normalization", "use_mask_for_norm")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network's first parameters come from: a run, or a weight file.

    Attributes:
      run: run folder to take parameters from.
      from_torch: weight file to take them from: a checkpoint of nnU-Net, a state dict
        (.pth, .pt), safetensors or npz, by torch's names or ours.
      checkpoint: which one of the run, `best` or `last`.
      surgery: how they are made to fit.
    """

    run: Path | None = None
    from_torch: Path | None = None
    checkpoint: Literal["best", "last"] = "best"
    surgery: Surgery = field(default_factory=Surgery)

    def __post_init__(self) -> None:
        """Refuse two origins, none, and files in place of runs."""
        if (self.run is None) == (self.from_torch is None):
            raise ValueError(
                "an origin is either a run folder or, given as from_torch, a weight "
                f"file; got run={self.run}, from_torch={self.from_torch}"
            )
        if self.run is not None and self.run.is_file():
            raise ValueError(
                f"{self.run}: is a file where a run folder is expected; weight files "
                "are read by --from-torch alone"
            )

    @property
    def path(self) -> Path:
        """The run folder or the file."""
        return Path(self.run or self.from_torch or "")

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold, with the whole path."""
        where = {"path": str(self.path.resolve()), "checkpoint": self.checkpoint}
        return json.loads(json.dumps(where | dataclasses.asdict(self.surgery)))


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A network whose parameters are wanted.

    Attributes:
      title: file or run, and step.
      variables: parameters and model statistics in one tree.
      channels: names of its input channels, None if unknown.
      classes: names of its outputs, None if unknown.
      plan: how its images were prepared, None if unknown.
    """

    title: str
    variables: dict[str, Any]
    channels: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    plan: Plan | None = None


def transplant(
    variables: Mapping[str, Any], *, model: Network, plan: Plan, origin: Origin
) -> tuple[dict[str, Any], GraftReport]:
    """Variables of a network with the parameters of another.

    Input channels go by name, heads as the surgery says.

    Args:
      variables: `params` and, for batch norm, `batch_stats`, of the target.
      model: the target.
      plan: how the target's images are prepared.
      origin: where the parameters come from.

    Raises:
      FileNotFoundError: the origin is not there.
      ValueError: something does not fit; all of it is listed.
    """
    how = origin.surgery
    target = _one_tree(variables)
    if origin.from_torch is not None:
        source = _read_file(origin.from_torch, variables["params"])
    else:
        package = type(model).__module__.partition(".")[0]
        source = _read_source_run(origin.path, origin.checkpoint, (package,))
    try:
        channels = _named(source.channels, how.source_channels, "input channels")
        classes = _named(source.classes, how.source_classes, "classes")
        if channels is None:
            raise ValueError(
                "the file does not name its input channels, so their order is unknown; "
                "name them in the order in which its network takes them, such as "
                "--source-channels t1n t1c t2w t2f"
            )
        if classes is None and how.heads in ("keep", "map"):
            raise ValueError(
                "the file does not name its classes; name them in the order of its "
                "outputs, such as --source-classes WT TC ET, or draw the heads anew"
            )
        regions = tuple(name for name, _ in plan.regions)
        tree, report = graft(
            target,
            source.variables,
            skip=how.skip,
            heads=how.heads,
            kernels=how.kernels,
            channels=ChannelMap(
                source=channels,
                target=plan.channels,
                new=how.new_channels,
                kernels=how.input_kernels or _kernels_that_see_the_image(model),
            ),
            classes=None
            if classes is None
            else ClassMap(source=classes, target=regions),
        )
    except ValueError as error:
        raise ValueError(
            f"{source.title}, onto a {type(model).__name__}: {error}"
        ) from error
    remarks = (f"from {source.title}", *_differences(source.plan, plan))
    return _as_variables(tree, variables), dataclasses.replace(report, remarks=remarks)


def graft_run(
    target: Path,
    origin: Origin | None,
    *,
    checkpoint: str = "best",
    allow: tuple[str, ...] = (),
) -> tuple[Run, GraftReport | None]:
    """A run with the parameters of another network, as a value; nothing is written.

    Args:
      target: run folder.
      origin: where parameters come from; None leaves those of the run.
      checkpoint: which one of the target, `best` or `last`.
      allow: packages outside bmjax that its network comes from.
    """
    if target.is_file():
        raise ValueError(
            f"{target}: is a file where a run folder is expected; weight files are "
            "read by --from-torch alone"
        )
    run = read_run(target, checkpoint=checkpoint, allow=allow)
    if origin is None:
        return run, None
    variables, report = transplant(
        run.variables, model=run.experiment.model, plan=run.plan, origin=origin
    )
    return dataclasses.replace(run, step=0, variables=variables), report


def read_nnunet(file: Path, *, surgery: Surgery) -> tuple[Run, GraftReport]:
    """A checkpoint of nnU-Net as a run, network and plan taken from it too.

    Args:
      file: the checkpoint.
      surgery: may give its channels and classes other names, and nothing else.

    Raises:
      ValueError: it does not say what it is of, or has no counterpart here.
    """
    named = Surgery(
        source_channels=surgery.source_channels, source_classes=surgery.source_classes
    )
    if surgery != named:
        raise ValueError(
            f"{surgery}: a run made of a checkpoint alone takes all of it; give a "
            "target run to take less"
        )
    whole = dataclasses.replace(named, heads="keep")
    metadata = read_weights(file).metadata
    try:
        experiment, plan = read_model(metadata)
        channels = _named(plan.channels, surgery.source_channels, "input channels")
        known = tuple(name for name, _ in plan.regions)
        classes = _named(known, surgery.source_classes, "classes")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    plan = dataclasses.replace(
        plan,
        channels=channels or plan.channels,
        regions=tuple(
            (new, labels)
            for new, (_, labels) in zip(classes or known, plan.regions, strict=True)
        ),
    )
    image = jax.ShapeDtypeStruct((1, *plan.patch_size, len(plan.channels)), jnp.float32)
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), image)
    variables, report = transplant(
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes),
        model=experiment.model,
        plan=plan,
        origin=Origin(from_torch=file, surgery=whole),
    )
    return Run(experiment, plan, 0, variables), report


def write_result(
    out: Path, run: Run, report: GraftReport | None, *, split: Path | None = None
) -> str:
    """A run in our own ways.

    Args:
      out: `.safetensors` or `.npz` for the parameters by our paths, else a run folder
        to make.
      run: whose.
      report: what became of each parameter, if they were grafted.
      split: file of the cases to train on and to hold out, for the run folder.

    Returns:
      What was written, in words.

    Raises:
      ValueError: the folder is there and not empty, or the suffix is torch's.
    """
    if out.suffix in (".pth", ".pt"):
        raise ValueError(f"{out}: files of torch are written by --to-torch")
    if out.suffix in SUFFIXES:
        leaves = flatten(_one_tree(run.variables))
        tensors = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        write_weights(out, tensors, metadata=_says_of_itself(out, run))
        return f"{out}: {len(tensors)} tensors by our names"
    account = None if report is None else str(report)
    write_run(out, run, account=account, split=split)
    return f"{out}: a run at step 0"


def write_torch(out: Path, run: Run) -> str:
    """A run's parameters as torch, nnU-Net and MONAI load them.

    Args:
      out: `.pth` for a checkpoint as nnU-Net's trainer writes it; `.pt`,
        `.safetensors` or `.npz` for a state dict alone; a folder for a trained model
        of nnU-Net.
      run: whose.

    Returns:
      What was written, in words.
    """
    state = to_torch(run.variables["params"])
    if out.suffix == ".pth":
        write_weights(out, state, metadata=describe(run))
        return f"{out}: a checkpoint of nnU-Net"
    if out.suffix in SUFFIXES:
        write_weights(out, state, metadata=_says_of_itself(out, run))
        return f"{out}: a state dict"
    if out.is_file() or out.suffix:
        raise ValueError(
            f"{out}: give a folder, or a file that ends in {', '.join(SUFFIXES)}"
        )
    write_model_folder(out, state, describe(run))
    return f"{out}: a trained model of nnU-Net (nnUNetv2_predict_from_modelfolder)"


def _says_of_itself(path: Path, run: Run) -> dict[str, str] | None:
    if path.suffix != ".safetensors":
        return None
    return {_PLAN_KEY: json.dumps(run.plan.to_dict())}


def _read_source_run(folder: Path, checkpoint: str, allow: tuple[str, ...]) -> _Source:
    run = read_run(folder, checkpoint=checkpoint, allow=allow)
    return _Source(
        title=f"{folder}, step {run.step}",
        variables=_one_tree(run.variables),
        channels=run.plan.channels,
        classes=tuple(name for name, _ in run.plan.regions),
        plan=run.plan,
    )


def _read_file(file: Path, target: Mapping[str, Any]) -> _Source:
    weights = read_weights(file)
    ours = not flatten(target).keys().isdisjoint(weights.tensors)
    try:
        if ours:
            variables = unflatten(weights.tensors)
        else:
            variables = from_torch(target, weights.tensors, strict=False)
        text = weights.metadata.get(_PLAN_KEY)
        if text is not None:
            plan = Plan.from_json(text)
            names = plan.channels, tuple(name for name, _ in plan.regions)
        else:
            plan, names = None, names_in(weights.metadata)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    channels, classes = names or (None, None)
    return _Source(
        title=str(file),
        variables=variables,
        channels=channels,
        classes=classes,
        plan=plan,
    )


def _named(
    known: tuple[str, ...] | None, given: tuple[str, ...], what: str
) -> tuple[str, ...] | None:
    """Names that were given, if any, else those that the source says."""
    if given and known is not None and len(given) != len(known):
        raise ValueError(
            f"it has {len(known)} {what} ({', '.join(known)}), but {len(given)} names "
            f"were given: {', '.join(given)}"
        )
    return given or known


def _kernels_that_see_the_image(model: Network) -> tuple[str, ...]:
    if getattr(model, "skip", None) == "after_pool":  # the decoder sees it again
        return "encoder/stage_0/conv_0/kernel", "decoder/stage_0/conv_0/kernel"
    return ()


def _differences(source: Plan | None, target: Plan) -> list[str]:
    """What the target does otherwise with its images."""
    if source is None:
        return []
    pairs = [(n, getattr(source, n), getattr(target, n)) for n in _COMPARED]
    return [
        f"plans differ: {name} was {old}, is now {new}"
        for name, old, new in pairs
        if old != new
    ]


def _one_tree(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by their own paths, statistics below `batch_stats/`."""
    return {
        **variables["params"],
        **{name: tree for name, tree in variables.items() if name != "params"},
    }


def _as_variables(
    tree: Mapping[str, Any], like: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    return {
        name: {module: tree[module] for module in leaves}
        if name == "params"
        else tree[name]
        for name, leaves in like.items()
    }
