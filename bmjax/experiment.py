"""What to run, as one value: an `Experiment`, read from Python, kept as JSON."""

import dataclasses
import difflib
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bmjax import losses, models
from bmjax.augment import AugmentPolicy, NewLesions, Spatial
from bmjax.data.pipeline import Loader
from bmjax.inference import SlidingWindow
from bmjax.ops.choices import Choices
from bmjax.planning import Plan
from bmjax.training import Fit, Optimizer

_KNOWN = {
    spec.__name__: spec
    for spec in (
        *(AugmentPolicy, NewLesions, Spatial),
        *(Fit, Loader, Optimizer, SlidingWindow),
        *(losses.DeepSupervision, losses.DiceBCE, losses.DiceCE, losses.TverskyBCE),
        *(losses.BinaryCrossEntropy, losses.BlobDiceBCE, losses.CrossEntropy),
        *(models.PlainUNet, models.ResEncUNet, models.SegResNet),
        *(models.UNet2D, models.ConvNet, models.FCN, models.RegionsOfClasses),
    )
}

_PARTS: dict[str, type] = {
    **{"model": models.Network, "data": Loader, "augment": AugmentPolicy},
    **{"optimizer": Optimizer, "fit": Fit, "inference": SlidingWindow, "seed": int},
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run.

    Attributes:
      model: network; any linen module that returns a tuple of logits.
      loss: loss of one resolution, or a `DeepSupervision` of one.
      data: where patches come from.
      augment: how they are varied.
      optimizer: how parameters change; its `num_steps` is the length of the run.
      fit: how often to look, log and save.
      inference: how whole volumes are predicted.
      convolutions: algorithms of single convolutions in training on a CPU, as
        `bmjax train --time-convolutions` found them; the static rule for all others.
      seed: origin of all randomness.
    """

    model: models.Network
    loss: Any = field(default_factory=losses.DiceBCE)
    data: Loader = field(default_factory=Loader)
    augment: AugmentPolicy = field(default_factory=AugmentPolicy)
    optimizer: Optimizer = field(default_factory=Optimizer)
    fit: Fit = field(default_factory=Fit)
    inference: SlidingWindow = field(default_factory=SlidingWindow)
    convolutions: Choices = ()
    seed: int = 0

    def replace(self, changes: Mapping[str, Any]) -> "Experiment":
        """A copy with other values at dotted paths, such as `{"data.fold": 2}`.

        Raises:
          ValueError: a path names no field; the nearest name is suggested.
        """
        changed = self
        for path, value in changes.items():
            changed = _replace(changed, path.split("."), value, path)
        return changed

    def resolve(self, plan: Plan) -> "Experiment":
        """A copy in which every field left None is filled from the plan."""
        found = {
            "model.num_classes": len(plan.regions),
            "data.patch_size": plan.patch_size,
            "data.batch_size": plan.batch_size,
            "loss.batch_dice": plan.batch_dice,
            **_topology(getattr(self.model, "features", None), plan),
        }
        missing = {path: value for path, value in found.items() if _is_open(self, path)}
        resolved = self.replace(missing)
        if resolved.model.num_classes != len(plan.regions):
            raise ValueError(
                f"model.num_classes is {resolved.model.num_classes}, but the plan has "
                f"{len(plan.regions)} regions ({', '.join(dict(plan.regions))}); "
                "leave it None to take the plan's"
            )
        return resolved

    def packages(self) -> tuple[str, ...]:
        """Packages outside bmjax that its classes come from."""
        return tuple(sorted({tag.split(".")[0] for tag in _foreign(_encode(self))}))

    def to_json(self) -> str:
        """The experiment as text; `from_json` gives it back exactly."""
        return json.dumps(_encode(self), indent=1)

    @staticmethod
    def from_json(text: str, *, allow: tuple[str, ...] = ()) -> "Experiment":
        """Read what `to_json` wrote; runs no code from it.

        Args:
          text: JSON.
          allow: packages outside bmjax whose classes may be imported for it.

        Raises:
          ValueError: it names a class of a package that is not allowed, or is no
            experiment of this version.
        """
        try:
            found = _decode(json.loads(text), allow)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a saved experiment ({error!r})") from error
        if not isinstance(found, Experiment):
            raise ValueError(f"not a saved experiment, but {type(found).__name__}")
        for name, kind in _PARTS.items():
            value = getattr(found, name)
            if not isinstance(value, kind):
                raise ValueError(
                    f"a saved experiment whose {name} is {value!r}; expected a "
                    f"{kind.__name__}"
                )
        return found


def load(path: str | Path, *, allow: tuple[str, ...] = ()) -> Experiment:
    """The experiment of a config file (`*.py` with `experiment()`) or of a run folder.

    A config is code and is run; the `experiment.json` of a run folder is only read.

    Args:
      path: config file or run folder.
      allow: packages outside bmjax whose classes a run folder may name.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has no `experiment()`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "experiment.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such config; expected a .py or a run folder"
        )
    if path.suffix == ".json":
        try:
            return Experiment.from_json(path.read_text(), allow=allow)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    spec = importlib.util.spec_from_file_location(f"bmjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not a Python file; a config ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module by name
    spec.loader.exec_module(module)
    if not hasattr(module, "experiment"):
        raise ValueError(
            f"{path}: a config defines `experiment() -> bmjax.Experiment`; found none"
        )
    return module.experiment()


def _topology(features: tuple[int, ...] | None, plan: Plan) -> dict[str, Any]:
    """The plan's stages, as many as the features that were chosen by hand."""
    num_stages = len(plan.features if features is None else features)
    if num_stages > len(plan.features):
        return {}
    return {
        "model.features": plan.features,
        "model.strides": plan.strides[:num_stages],
        "model.kernel_sizes": plan.kernel_sizes[:num_stages],
    }


def _is_open(value: Any, path: str) -> bool:
    """Whether the field at a dotted path exists and is None."""
    *parents, last = path.split(".")
    for name in parents:
        value = getattr(value, name)
    return last in _fields(value) and getattr(value, last) is None


def _fields(value: Any) -> list[str]:
    """Names of a spec's own fields, without linen's `parent` and `name`."""
    hidden = {"parent", "name"} if isinstance(value, models.Network) else set()
    return [f.name for f in dataclasses.fields(value) if f.name not in hidden]


def _replace(value: Any, parts: list[str], new: Any, path: str) -> Any:
    name, *rest = parts
    if not dataclasses.is_dataclass(value) or name not in _fields(value):
        known = _fields(value) if dataclasses.is_dataclass(value) else []
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        raise ValueError(f"{path}: {type(value).__name__} has no field {name}{hint}")
    if rest:
        new = _replace(getattr(value, name), rest, new, path)
    changed: Any = dataclasses.replace  # of any dataclass, which its type cannot say
    return changed(value, **{name: new})


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        kind = type(value)
        is_ours = _KNOWN.get(kind.__name__) is kind or kind is Experiment
        tag = kind.__name__ if is_ours else f"{kind.__module__}:{kind.__name__}"
        if kind.__module__.startswith(("bmjax_config_", "__main__")):
            raise ValueError(
                f"{kind.__name__} is defined in a config or script, where a saved run "
                "could not find it again; put it into a module and import it"
            )
        fields = {name: _encode(getattr(value, name)) for name in _fields(value)}
        return {"type": tag, **fields}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        f"{value!r}: a spec holds numbers, strings, None, tuples and specs only"
    )


def _foreign(value: Any) -> set[str]:
    """Modules outside bmjax that an encoded value names."""
    if isinstance(value, list):
        return set().union(*map(_foreign, value))
    if not isinstance(value, dict):
        return set()
    module, is_outside, _ = value["type"].partition(":")
    found = {module} if is_outside else set()
    return found.union(*(_foreign(v) for k, v in value.items() if k != "type"))


def _decode(value: Any, allow: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, allow) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {k: _decode(v, allow) for k, v in value.items() if k != "type"}
    return _find(value["type"], allow)(**fields)


def _find(tag: str, allow: tuple[str, ...]) -> Any:
    if tag == "Experiment":
        return Experiment
    if tag in _KNOWN:
        return _KNOWN[tag]
    module, _, name = tag.partition(":")
    package = module.partition(".")[0]
    if package not in allow:
        raise ValueError(
            f"the experiment uses {tag}, which is not part of bmjax; if you trust the "
            f"package {package}, allow it: --allow {package}"
        )
    found = importlib.import_module(module)
    return getattr(found, name)
