"""Kills bmjax's commands at random moments, and looks whether anything was lost.

    python -m tests.faults.torture --rounds 200 --seed 0 --out FILE.md

A round is one SIGKILL or SIGTERM to a command that runs, at a moment that the seed
draws; the next round of the same working folder kills the command that goes on from
there. After one to five rounds the command is left alone, and what it leaves must be,
file by file, what an undisturbed run leaves: parameters, predictions, stores, tables
and logs, without temporary files and without a case lost or doubled.
"""

import argparse
import json
import math
import os
import platform
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.torture_jobs import (
    JOBS,
    Job,
    environment,
    faults_of,
    result,
    undisturbed,
    versions,
)

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_BEFORE_WORK = 0.15  # share of the kills that come before the first file is written
_START_S = 4.0  # of Python and its imports
_MOST_ROUNDS = 5  # in one folder
_ORPHANS_S = 20.0
_STUCK_S = 600.0
_STARTED: list[subprocess.Popen[bytes]] = []


@dataclass
class Chain:
    """What became of one working folder.

    Attributes:
      job: name of the command.
      seed: of the moments.
      kills: signal and seconds after the start, of each round.
      losses: what differs from an undisturbed run; none is the hope.
    """

    job: str
    seed: int
    kills: list[tuple[str, float]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


def torture(job: Job, base: Path, *, seed: int, rounds: int) -> Chain:
    """Kill a command up to `rounds` times, let it finish, and compare.

    Args:
      job: the command.
      base: folder of cohorts and undisturbed runs, see `undisturbed`.
      seed: of signals and moments.
      rounds: most kills; a command that ends before its kill ends the chain.
    """
    expected, rng = undisturbed(job, base), random.Random(f"{job.name} {seed}")
    chain = Chain(job.name, seed)
    work = Path(tempfile.mkdtemp(prefix=f"{job.name}-{seed}-", dir=base))
    command = job.command(base, work)
    mark = f"BMJAX_TORTURE={work}"
    variables = {**environment(base), "BMJAX_TORTURE": str(work)}
    with (work.with_suffix(".log")).open("w+b") as log:

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            _STARTED.append(process)
            return process

        for _ in range(rounds):
            number, before = rng.choice(SIGNALS), _files(work)
            is_early = rng.random() < _BEFORE_WORK
            wait_s = (
                rng.uniform(0, _START_S) if is_early else rng.uniform(0, job.longest_s)
            )
            process, began = start(), time.monotonic()
            if not is_early:
                while process.poll() is None and _files(work) == before:
                    time.sleep(0.01)
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
            if process.poll() is not None:
                break  # it was done, or failed: the last start tells
            process.send_signal(number)
            seconds = round(time.monotonic() - began, 2)
            code = process.wait(_STUCK_S)
            if code not in (-number, 75, 0):
                chain.losses.append(
                    f"{number.name} after {seconds} s: exit code {code}"
                )
            chain.kills.append((number.name, seconds))
            if _outlive(mark):
                chain.losses.append(f"processes live on {_ORPHANS_S:g} s after a kill")
        code = start().wait(_STUCK_S)
        if code != 0:
            log.seek(0)
            tail = log.read()[-2000:].decode(errors="replace")
            chain.losses.append(f"the last start ended with {code}: {tail}")
    if not chain.losses:
        chain.losses += faults_of(work) + _differences(expected, result(work))
    if not chain.losses:
        shutil.rmtree(work)
        work.with_suffix(".log").unlink()
    return chain


def _end_all(number: int, _: object) -> None:
    """A tortured command does not outlive its torturer."""
    for process in _STARTED:
        process.kill()
    os._exit(128 + number)


def _files(work: Path) -> int:
    return sum(len(names) + len(folders) for _, folders, names in os.walk(work))


def _outlive(mark: str) -> bool:
    """Whether processes with this mark are still there after a while."""
    deadline = time.monotonic() + _ORPHANS_S
    while time.monotonic() < deadline:
        living = False
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                living |= mark.encode() in path.read_bytes()
        if not living:
            return False
        time.sleep(0.1)
    return True


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    changed = [n for n in expected if n in found and expected[n] != found[n]]
    named = (("lost", missing), ("too many", extra), ("different", changed))
    return [f"{what}: {name}" for what, names in named for name in names]


def torture_all(
    base: Path, args: argparse.Namespace, *, until: float
) -> Iterator[Chain]:
    """Folders one after the other, `args.at_once` side by side, as they are done."""
    running: dict[Future[Chain], int] = {}
    kills, seed = 0, args.seed
    with ThreadPoolExecutor(args.at_once) as pool:
        while True:
            left = args.rounds - kills - sum(running.values())
            while len(running) < args.at_once and left > 0 and time.monotonic() < until:
                job = JOBS[args.jobs[seed % len(args.jobs)]]
                rounds = min(random.Random(seed).randint(1, _MOST_ROUNDS), left)
                call = pool.submit(torture, job, base, seed=seed, rounds=rounds)
                running[call] = rounds
                left, seed = left - rounds, seed + 1
            if not running:
                return
            for call in wait(running, return_when=FIRST_COMPLETED).done:
                del running[call]
                kills += len(call.result().kills)
                yield call.result()


def base_folder() -> Path:
    """A private folder for cohorts and undisturbed runs, kept between calls."""
    folder = Path(tempfile.gettempdir()) / f"bmjax-torture-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def summary(chains: list[Chain], command: str) -> str:
    """What was done and found, as Markdown."""
    rounds = sum(len(chain.kills) for chain in chains)
    losses = [(c, loss) for c in chains for loss in c.losses]
    lines = [
        "# Crash torture",
        "",
        f"{rounds} kills in {len(chains)} working folders; {len(losses)} losses.",
        "",
        f"- command: `{command}`",
        f"- device: {os.cpu_count()} cores, {platform.machine()}, no accelerator",
        f"- versions: {versions()}",
        "",
        "A round is one signal to a running command; after one to five of them the",
        "command is started once more and left alone, and each file of its working",
        "folder is compared with that of an undisturbed run (times, memory and paths",
        "aside; of checkpoints the arrays). Pages and pictures have to be there.",
        "",
        "| command | SIGKILL | SIGTERM | folders compared | losses |",
        "|---|---|---|---|---|",
    ]
    for job in JOBS:
        own = [chain for chain in chains if chain.job == job]
        counts = Counter(name for chain in own for name, _ in chain.kills)
        bad = sum(len(chain.losses) for chain in own)
        signals = " | ".join(str(counts[number.name]) for number in SIGNALS)
        lines.append(f"| {job} | {signals} | {len(own)} | {bad} |")
    if losses:
        lines += ["", "## Losses", ""]
        lines += [f"- {chain.job}, seed {chain.seed}: {loss}" for chain, loss in losses]
    return "\n".join([*lines, ""])


def main() -> int:
    """Torture from the command line; 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="kills, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first folder")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=[*JOBS])
    parser.add_argument("--at-once", type=int, default=2, help="folders side by side")
    parser.add_argument("--for-s", type=float, help="begin no folder after so long")
    parser.add_argument(
        "--fresh", action="store_true", help="run the undisturbed commands again"
    )
    parser.add_argument("--out", type=Path, help="Markdown file for the summary")
    parser.add_argument(
        "--records", type=Path, help="JSON lines to append to, and to summarise with"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _end_all)
    base, began = base_folder(), time.monotonic()
    if args.fresh:
        shutil.rmtree(base / "whole", ignore_errors=True)
    for name in args.jobs:
        undisturbed(JOBS[name], base)
    chains = []
    for chain in torture_all(base, args, until=began + (args.for_s or math.inf)):
        chains.append(chain)
        print(json.dumps(asdict(chain)), flush=True)
        if args.records:
            with args.records.open("a") as file:
                file.write(json.dumps(asdict(chain)) + "\n")
    if args.records:
        lines = args.records.read_text().splitlines()
        chains = [Chain(**json.loads(line)) for line in lines]
    if args.out:
        command = f"python -m tests.faults.torture --rounds {args.rounds}"
        args.out.write_text(summary(chains, command))
    return int(any(chain.losses for chain in chains))


if __name__ == "__main__":
    raise SystemExit(main())
