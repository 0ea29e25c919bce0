"""What differs between a run as it was begun and as it is to go on (fault 49)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmjax.experiment import Experiment, load

# they change when a result is there, not which one
HARMLESS = frozenset(
    {
        *("data.store", "data.num_workers", "data.num_threads", "data.num_ahead"),
        "data.timeout_s",
        *("fit.log_every", "fit.keep_last"),
    }
)
_LENGTHS = ("optimizer.num_steps", "optimizer.num_epochs", "optimizer.epoch_steps")
_MOST_CASES = 8


def require_same(
    run: Path,
    experiment: Experiment,
    facts: Mapping[str, Any],
    *,
    override: bool = False,
) -> tuple[str, ...]:
    """Compare with what the run folder says, if it says anything.

    Args:
      run: run folder.
      experiment: resolved.
      facts: digest of the `plan`, and of each case of `train` and `val`.
      override: accept any difference.

    Returns:
      The differences that are gone on with, line by line.

    Raises:
      ValueError: there is a difference that changes the result.
    """
    if not (run / "experiment.json").is_file():
        return ()
    # read and written again, a field that bmjax did not have yet has its default
    before = load(run, allow=experiment.packages())
    was, now = (_flat(json.loads(spec.to_json())) for spec in (before, experiment))
    changed = [p for p in sorted({*was, *now}) if was.get(p) != now.get(p)]
    lines = {p: f"{p}: was {was.get(p)!r}, is now {now.get(p)!r}" for p in changed}
    cases = _changed_data(run, facts)
    harmful = [lines[p] for p in changed if p not in HARMLESS] + cases
    if harmful and not override:
        raise ValueError(
            f"{run}: holds a run of another experiment:\n"
            + "\n".join(f"  {line}" for line in harmful)
            + _about_length(before, experiment, changed)
            + "\nGo on with the old values, choose another --workdir, or accept the "
            "change with --override"
        )
    return (*lines.values(), *cases)


def _about_length(before: Experiment, now: Experiment, changed: list[str]) -> str:
    """What a new length does to the learning rate."""
    old, new = before.optimizer.total_steps, now.optimizer.total_steps
    if old == new or not set(changed).intersection(_LENGTHS):
        return ""
    if new < old or now.optimizer.restarts != before.optimizer.restarts:
        return ""
    last = float(before.optimizer.learning_rate()(old - 1))
    next_ = float(now.optimizer.learning_rate()(old))
    restarts = " ".join(map(str, (*now.optimizer.restarts, old)))
    return (
        f"\nWith --override the schedule is stretched: at step {old} the learning rate "
        f"is {next_:.3g} where it had come down to {last:.3g}. Add "
        f"--optimizer.restarts {restarts} to keep the rates up to there and begin a "
        f"schedule of {new - old} steps anew"
    )


def _changed_data(run: Path, facts: Mapping[str, Any]) -> list[str]:
    path = run / "data.json"
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    lines = []
    if before["plan"] != facts["plan"]:
        lines.append(f"plan: was {before['plan']}, is now {facts['plan']}")
    for part in ("train", "val"):
        was, now = before[part], facts[part]
        both = was.keys() & now.keys()
        for kind, cases in (
            ("no longer there", was.keys() - now.keys()),
            ("new", now.keys() - was.keys()),
            ("prepared from other files", {c for c in both if was[c] != now[c]}),
        ):
            if cases:
                shown = ", ".join(sorted(cases)[:_MOST_CASES])
                more = len(cases) - _MOST_CASES
                tail = f" and {more} more" if more > 0 else ""
                lines.append(f"{part} cases {kind}: {shown}{tail}")
    return lines


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found.update(_flat(item, f"{path}.{name}" if path else name))
    return found
