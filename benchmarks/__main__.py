"""Runs the suite: `python -m benchmarks [NAME] [--quick]`, which is `bmjax bench`."""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import driver, rows, suite, tables, timing

OK, FAILED, USAGE = 0, 1, 2


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks wanted; results are appended to a file of the device."""
    args = _parser().parse_args(argv)
    # absolute, as workers start in the checkout; not resolved, as a venv is a link
    peer_python = shutil.which(args.peer_python)
    if peer_python is None:
        _say(f"error: no Python to run at {args.peer_python} (--peer-python)")
        return USAGE
    settings = driver.Settings(
        rounds=1 if args.quick else args.rounds,
        threads=args.threads,
        peer_python=os.path.abspath(peer_python),
        commit=commit(),
        say=_say,
    )
    names = suite.NAMES if args.name == "all" else (args.name,)
    asked = None if args.peers is None else tuple(filter(None, args.peers.split(",")))
    try:
        present = _present(names, asked, settings, is_quick=args.quick)
    except ValueError as error:
        _say(f"error: {error}")
        return USAGE
    chosen = [(name, *found) for name in names for found in _cases(name, args)]
    if not chosen:
        _say(f"error: no case of {args.name} contains {args.case!r}")
        return USAGE
    num_failed = 0
    for name, size, case in chosen:
        peers = [p for p in suite.peers(name, case, size) if p in present]
        at_size = replace(settings, size=size)
        try:
            made = driver.run_case(name, case, peers=peers, settings=at_size)
        except (driver.WorkerError, ValueError) as error:
            _say(f"error: {name} / {case}: {error}")
            num_failed += 1
            continue
        num_failed += len({row.peer for row in made} - {None}) < len(peers)
        if args.out or not args.quick:
            rows.append(made, args.out or rows.RESULTS)
        for row in made:
            print(row.to_json() if args.json else tables.line(row), flush=True)
    return FAILED if num_failed else OK


def _cases(name: str, args: argparse.Namespace) -> list[tuple[suite.Size, str]]:
    sizes: list[suite.Size] = ["quick"] if args.quick else ["full"]
    if args.large and not args.quick:
        sizes.append("large")
    every = [(size, case) for size in sizes for case in suite.cases(name, size)]
    exactly = [found for found in every if found[1] == args.case]
    return exactly or [found for found in every if args.case in found[1]]


def commit() -> str:
    """Short name of the checkout's commit, with a `+` if it was changed since."""
    if shutil.which("git") is None:
        return "unknown"
    git = ["git", "-C", str(driver.ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], **_QUIETLY)
    if name.returncode:
        return "unknown"
    changes = subprocess.run([*git, "status", "--porcelain", "bmjax"], **_QUIETLY)
    return name.stdout.strip() + ("+" if changes.stdout.strip() else "")


_QUIETLY = {"capture_output": True, "text": True, "check": False}


def _present(
    names: tuple[str, ...],
    asked: tuple[str, ...] | None,
    settings: driver.Settings,
    *,
    is_quick: bool,
) -> set[str]:
    """The peers that can take part; those that cannot are said.

    Raises:
      ValueError: one was asked for that is unknown or not installed.
    """
    useful = {peer for name in names for peer in suite.bench(name).PEERS}
    if asked is None:
        wanted = set() if is_quick else useful
    else:
        wanted = set(asked)
    if unknown := sorted(wanted - set(suite.PEERS)):
        raise ValueError(
            f"unknown peers {', '.join(unknown)}; known: {', '.join(suite.PEERS)}"
        )
    present = set()
    for peer in sorted(wanted & useful):
        absent = driver.absent_packages(peer, settings)
        if not absent:
            present.add(peer)
            continue
        text = (
            f"peer {peer} needs {', '.join(absent)}, which "
            f"{driver.python_of(peer, settings)} does not have; install it there, or "
            "name a Python that has it: --peer-python"
        )
        if asked is not None:
            raise ValueError(text)
        _say(f"{text}. Rows are written without it")
    return present


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bmjax bench", description="Time our code, beside its peers."
    )
    add = parser.add_argument
    add("name", nargs="?", default="all", choices=("all", *suite.NAMES))
    add(
        "--case",
        default="",
        help="only the case of this name, or those whose name contains it",
    )
    add("--quick", action="store_true", help="tiny sizes, once; nothing is kept")
    add("--large", action="store_true", help="the sizes of an accelerator too")
    add("--peers", help=f"of {', '.join(suite.PEERS)}; '' for none; default: all")
    add("--rounds", type=int, default=3, help="turns of ours and the peers")
    add("--threads", type=int, default=timing.num_threads(), help="default: all cores")
    peer_python = os.environ.get("BMJAX_PEER_PYTHON") or sys.executable
    add("--peer-python", default=peer_python, help="or set BMJAX_PEER_PYTHON")
    add("--out", type=Path, help="folder for the rows; default: benchmarks/results")
    add("--json", action="store_true", help="print rows as lines of JSON")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
