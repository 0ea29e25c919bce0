"""From the command line to the doors: the only room that knows flags and exit codes."""

import sys
from collections.abc import Callable, Sequence

import tyro

import bmjax
from bmjax.cli import data, pages, prediction, results, training, whole
from bmjax.cli.about import about
from bmjax.cli.output import FAILED, OK, USAGE, complain
from bmjax.compilation import return_memory, use_cache
from bmjax.sharding import split_cpu

__all__ = ["FAILED", "OK", "USAGE", "VERBS", "main"]

VERBS: dict[str, Callable[..., int]] = {
    **{"demo": whole.demo, "check": data.check, "plan": data.plan},
    **{"prepare": data.prepare},
    **{"train": training.train_from(None), "predict": prediction.predict},
    "preview": training.preview_from(None),
    **{"evaluate": results.evaluate, "graft": training.graft},
    **{"bundle": prediction.bundle, "explain": prediction.explain},
    **{"report": pages.report, "track": pages.track},
    **{"study": whole.study, "bench": whole.bench},
}

_OF_CONFIG = {"train": training.train_from, "preview": training.preview_from}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["--version"], ["-V"]) and argv[1:] in ([], ["--devices"]):
        print(about(has_devices=argv[1:] == ["--devices"]))
        sys.exit(OK)
    try:
        sys.exit(_run(argv))
    except (FileNotFoundError, ValueError, RuntimeError, OSError) as error:
        complain(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        return whole.bench(argv[1:])  # its flags are those of the suite
    if argv[:1] == ["study"]:
        return whole.study(argv[1:])  # it has verbs of its own
    if argv[:1] in (["train"], ["preview"], ["predict"], ["explain"], ["demo"]):
        use_cache()
        return_memory()
        split_cpu()
    for verb in ("train", "preview"):
        if argv[:1] == [verb]:
            # its flags are the fields of its config, so that is read first
            has_config = len(argv) > 1 and not argv[1].startswith("-")
            experiment = bmjax.load(argv[1]) if has_config else None
            own = _OF_CONFIG[verb](experiment)
            return tyro.cli(own, prog=f"bmjax {verb}", args=argv[1:])
    return tyro.extras.subcommand_cli_from_dict(
        VERBS, prog="bmjax", description=bmjax.__doc__, args=argv
    )
