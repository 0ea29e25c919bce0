"""Reads plans from where people have them: stores, runs, files, nnU-Net's folders."""

import json
from pathlib import Path
from typing import Any

from bmjax.data.layout import in_our_words
from bmjax.data.nnunet_raw import NAME, read_description
from bmjax.planning import Plan
from bmjax.planning.nnunet import read_plan
from bmjax.planning.plan import ConfigurationName

OURS = "plan.json"


def load_plan(
    path: str | Path, *, configuration: ConfigurationName = "3d_fullres"
) -> Plan:
    """The plan of a store or run folder, of a plan.json, or of nnU-Net's plans.

    Args:
      path: folder or file. Beside plans of nnU-Net lies their dataset.json.
      configuration: which one, of nnU-Net's plans.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is no plan, or the configuration is a cascade.
    """
    path = Path(path)
    if path.is_dir():
        names = (OURS, "plans.json", "nnUNetPlans.json")
        found = next((path / n for n in names if (path / n).is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{path}: no plan here; expected a store, a run, or a folder with "
                f"{' or '.join(names)}"
            )
        path = found
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such plan")
    values = _read(path)
    try:
        if "configurations" not in values:
            return Plan.from_dict(values)
        beside = path.parent / NAME
        if not beside.is_file():
            raise ValueError(
                f"no {NAME} beside it, which names its channels and labels; copy it "
                "there"
            )
        plan = read_plan(values, read_description(beside), configuration=configuration)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path}: not a plan ({error!r})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Plan.from_dict(
        plan.to_dict() | {"channels": list(in_our_words(plan.channels))}
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a plan, but a {type(values).__name__}")
    return values
