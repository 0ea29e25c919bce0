"""Tables and plots of the newest rows: `python -m benchmarks.tables` writes them.

The tables go between two markers of README.md, the plots into plots/; nothing else is
touched, and nothing is written by hand there.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import rows, suite
from benchmarks.rows import Row

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SHOWN_FACTS = {
    "memory": ("argument_mib", "temp_mib"),
    "sliding": ("windows",),
    "input": ("samples_per_call",),
}
By = dict[str, dict[tuple[str, str | None], Row]]  # by bench, then by case and peer


def line(row: Row) -> str:
    """A row in words, for the terminal."""
    text = f"{row.bench} / {row.case}: {_ms(row)} ms"
    if row.gflop_per_s:
        text += f", {row.gflop_per_s:.4g} GFLOP/s"
    if row.peer:
        text += f"; {row.ratio:.3g} of {row.peer} ({row.peer_setting})"
    return text


def newest(found: Sequence[Row]) -> dict[str, By]:
    """The last row of each device, bench, case and peer."""
    last: dict[str, By] = {}
    for row in found:
        by_bench = last.setdefault(row.device, {})
        by_bench.setdefault(row.bench, {})[row.case, row.peer] = row
    return last


def markdown(found: Sequence[Row]) -> str:
    """All tables, one heading per device and benchmark."""
    parts = []
    for device, by_bench in newest(found).items():
        parts.append(f"## {device}\n")
        for name in (n for n in suite.NAMES if n in by_bench):
            last = list(by_bench[name].values())
            one_job = (suite.bench(name).__doc__ or "").split("\n\n")[0]
            parts.append(f"### {name}\n\n{one_job.strip()}\n\n{_table(name, last)}\n")
            for series, power in growth(last).items():
                parts.append(f"Time grows with {series} to the power {power:.2f}.\n")
        stamps = sorted({_stamp(r) for by in by_bench.values() for r in by.values()})
        parts.append("Measured with " + "; ".join(stamps) + ".\n")
    return "\n".join(parts) or "Nothing was measured yet.\n"


def growth(found: Sequence[Row]) -> dict[str, float]:
    """Exponent of the time over what grows: the slope of a line through the logs."""
    points = _series(found)
    return {
        series: float(np.polyfit(*np.log(np.transpose(xy)), 1)[0])
        for series, xy in points.items()
        if len(xy) > 1
    }


def write_plots(found: Sequence[Row], folder: Path) -> list[Path]:
    """One picture of all ratios and one of the growth, for each device."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bmjax"  # same rows, same bytes
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    written = []
    for device, by_bench in newest(found).items():
        last = [row for by_case in by_bench.values() for row in by_case.values()]
        bars = [row for row in last if row.ratio][::-1]
        series = _series(last)
        for kind, content in (("ratio", bars), ("growth", series)):
            if not content:
                continue
            height = 0.22 * len(content) + 1.2 if kind == "ratio" else 4
            figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
            axes.set_xscale("log")
            if kind == "ratio":
                names = [f"{r.bench} / {r.case} / {r.peer}" for r in bars]
                axes.barh(names, [r.ratio - 1 for r in bars], left=1)
                axes.axvline(1, color="black", linewidth=1)
                axes.set_xlabel("our time / the peer's best (left of 1: we are faster)")
                axes.tick_params(axis="y", labelsize=6)
                axes.margins(y=0.01)
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            else:
                for name, xy in series.items():
                    axes.plot(*np.transpose(xy), marker="o", label=name)
                axes.set(yscale="log", xlabel="size", ylabel="training step [ms]")
                axes.legend()
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.set_title(device, fontsize=8)
            folder.mkdir(parents=True, exist_ok=True)
            written.append(folder / f"{rows.slug(device)}-{kind}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            plt.close(figure)
    return written


def main(argv: list[str] | None = None) -> None:
    """Write the tables of all results into the README, and the plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables")
    parser.add_argument("--results", type=Path, default=rows.RESULTS)
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    args = parser.parse_args(argv)
    found = list(rows.read(args.results))
    text = args.readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{args.readme}: expected the markers {BEGIN} and {END}, once")
    plots = write_plots(found, args.readme.parent / "plots")
    pictures = "".join(f"\n![{p.stem}](plots/{p.name})\n" for p in plots)
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    tables = f"{BEGIN}\n{markdown(found)}{pictures}{END}"
    args.readme.write_text(before + tables + after)


def _table(name: str, found: Sequence[Row]) -> str:
    """Markdown, one line per case, without the columns that nobody fills."""
    by_case: dict[str, dict[str | None, Row]] = {}
    for row in found:
        by_case.setdefault(row.case, {})[row.peer] = row
    columns: list[tuple[str, Callable[[dict[str | None, Row]], str]]] = [
        ("case", lambda by: _any(by).case),
        ("ms (p10 to p90)", lambda by: _ms(_any(by))),
        ("GFLOP/s", lambda by: _number(_any(by).gflop_per_s)),
        ("of matmul", lambda by: _number(_any(by).fraction_of_matmul)),
        ("compile cold s", lambda by: _number(_any(by).compile_cold_s)),
        ("warm s", lambda by: _number(_any(by).compile_warm_s)),
        ("peak MiB", lambda by: _number(_any(by).peak_mib)),
    ]
    columns += [
        (fact, lambda by, fact=fact: _number(_any(by).facts.get(fact)))
        for fact in SHOWN_FACTS.get(name, ())
    ]
    for peer in suite.PEERS:
        columns += [
            (f"{peer} ms", lambda by, p=peer: _theirs(by.get(p))),
            (f"ours/{peer}", lambda by, p=peer: _bold(by.get(p))),
            (
                "of default",
                lambda by, p=peer: _number(by[p].ratio_default) if p in by else "",
            ),
            ("of its MiB", lambda by, p=peer: _number(_memory_ratio(by.get(p)))),
        ]
    cells = [[title, *map(show, by_case.values())] for title, show in columns]
    filled = [column for column in cells if any(column[1:])]
    lines = list(zip(*filled, strict=True))
    lines.insert(1, ("---",) * len(filled))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _any(by_peer: dict[str | None, Row]) -> Row:
    """A row with our own numbers, which are the same beside every peer."""
    return next(reversed(by_peer.values()))


def _series(found: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in found:
        if "series" in row.facts:
            xy = (row.facts["x"], row.median_ms)
            points.setdefault(row.facts["series"], []).append(xy)
    return {series: sorted(xy) for series, xy in points.items()}


def _stamp(row: Row) -> str:
    ours = row.environment["ours"]["versions"]
    theirs = row.environment.get("peer", {}).get("versions", {})
    names = ("jax", "flax", "numpy")
    text = [f"{name} {ours[name]}" for name in names if name in ours]
    text += [f"torch {theirs['torch']}"] if "torch" in theirs else []
    return f"{row.threads} threads, commit {row.commit}, {', '.join(text)}"


def _ms(row: Row) -> str:
    return f"{row.median_ms:.4g} ({row.p10_ms:.4g} to {row.p90_ms:.4g})"


def _theirs(row: Row | None) -> str:
    return f"{row.peer_median_ms:.4g} ({row.peer_setting})" if row else ""


def _bold(row: Row | None) -> str:
    return f"**{_number(row.ratio)}**" if row else ""


def _memory_ratio(row: Row | None) -> float | None:
    """Our memory over the peer's: of the whole process where there is a program.

    To make a program takes most of the memory, so what comes after it says little.
    """
    if row is None:
        return None
    if row.compile_cold_s is not None:
        return row.peak_mib / row.peer_peak_mib if row.peer_peak_mib else None
    if row.above_bare_mib is None or not row.peer_above_bare_mib:
        return None
    return row.above_bare_mib / row.peer_above_bare_mib


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
