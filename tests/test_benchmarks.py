"""The benchmark suite runs, counts rightly, and turns its rows into tables."""

import argparse
import ast
import dataclasses
import json
import subprocess
import sys
from functools import partial
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    __main__,
    bench_blocks,
    budget,
    driver,
    nets,
    programs,
    rows,
    suite,
    tables,
    worker,
)
from benchmarks.peers import flax as stock  # noqa: E402

SETTINGS = driver.Settings(
    size="quick", rounds=1, threads=1, commit="abc", say=lambda text: None
)


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """Stock flax adds a bias of one axis to an image of five."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", suite.NAMES)
def test_every_benchmark_runs_quickly_and_leaves_valid_rows(name, tmp_path):
    for case in suite.cases(name, "quick"):
        found = worker.measure(name, case, "bmjax", size="quick", scratch=tmp_path)
        found = json.loads(json.dumps(found))  # as it comes from a process
        (row,) = driver.make_rows(name, case, {"bmjax": [found]}, settings=SETTINGS)
        again = rows.Row.from_json(row.to_json())
        assert (again.bench, again.case, again.peer) == (name, case, None)
        assert 0 < again.p10_ms <= again.median_ms <= again.p90_ms
        assert again.n == 1 and again.is_quick
        if again.gflop is not None:
            assert again.gflop_per_s > 0 and again.fraction_of_matmul > 0


def test_every_benchmark_of_the_folder_is_in_the_suite():
    files = {p.stem.removeprefix("bench_") for p in (ROOT / "benchmarks").glob("b*_*")}
    assert files == set(suite.NAMES)


def test_every_peer_has_a_function_for_each_benchmark_it_is_named_by():
    for name in suite.NAMES:
        for peer in suite.bench(name).PEERS:
            file = ROOT / "benchmarks/peers" / f"{suite.PEERS[peer].module}.py"
            tree = ast.parse(file.read_text())
            defined = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
            assert name in defined, f"{file.name} has no {name}()"


@pytest.mark.parametrize("part", ["forward", "input gradient", "kernel gradient"])
@pytest.mark.parametrize("stride", [1, 2])
def test_gflop_of_a_convolution_is_the_count_by_hand(part, stride):
    block = bench_blocks.Block(
        layer="conv", part=part, size=(8, 6, 4), channels=3, features=5, stride=stride
    )
    # taps that lie on the image: three per output, less those over an edge
    by_hand = [3 * n - 2 if stride == 1 else 3 * n // 2 - 1 for n in block.size]
    assert block.multiply_adds == 2 * prod(by_hand) * 3 * 5
    work = suite.builder("blocks", "bmjax")(block, scratch=None)
    assert work.gflop == pytest.approx(2 * block.multiply_adds / 1e9, rel=1e-12)


def test_gflop_of_the_plain_unet_is_the_count_by_hand():
    net = nets.PLAIN
    features = net.features

    def layer(kind, level, channels, features, **options):
        size = (net.patch_size[0] >> level,) * 3
        return bench_blocks.Block(
            layer=kind, size=size, channels=channels, features=features, **options
        ).multiply_adds

    macs = layer("conv", 0, nets.CHANNELS, features[0])
    macs += layer("conv", 0, features[0], features[0])
    for level, (channels, wide) in enumerate(zip(features, features[1:], strict=False)):
        macs += layer("conv", level, channels, wide, stride=2)
        macs += layer("conv", level + 1, wide, wide)
        macs += layer("up", level + 1, wide, channels, kernel=2, stride=2)
        macs += layer("conv", level, 2 * channels, channels)
        macs += layer("conv", level, channels, channels)
        macs += layer("conv", level, channels, nets.NUM_CLASSES, kernel=1)
    counted = forward_gflop(programs.model_of(net), net)
    # norms and activations are the rest
    assert 1 < counted / (2 * macs / 1e9) < 1.02


@pytest.mark.parametrize("net", nets.ALL.values(), ids=lambda net: net.kind)
def test_stock_flax_networks_are_the_same_networks(net):
    net = dataclasses.replace(
        net,
        patch_size=tuple(n // 4 for n in net.patch_size),
        features=net.features[:3],
        num_blocks=net.num_blocks[:3],
    )
    ours, theirs = programs.model_of(net), stock.build(net)
    assert num_params(ours, net) == num_params(theirs, net)
    # a convolution on a coarser grid has more of its taps beyond the border
    assert forward_gflop(theirs, net) == pytest.approx(
        forward_gflop(ours, net), rel=0.02
    )


def abstract(model, net):
    size = (net.batch_size, *net.patch_size, nets.CHANNELS)
    image = jax.ShapeDtypeStruct(size, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image), image


def num_params(model, net):
    return programs.count(abstract(model, net)[0]["params"])


def forward_gflop(model, net):
    return programs.gflop(partial(programs.first_output, model), *abstract(model, net))


def found(times_ms, *, compile_s=None, num_params=7):
    return {
        "times_ms": times_ms,
        "compile_s": compile_s,
        "peak_mib": 100.0,
        "above_bare_mib": 10.0,
        "gflop": 2.0,
        "matmul_gflop_per_s": 100.0,
        "facts": {"num_params": num_params},
        "environment": {
            "device": "CPU (avx2)",
            "threads": 2,
            "versions": {"jax": "1.0", "torch": "2.0"},
        },
    }


def sample_rows(name="step", case="PlainUNet"):
    results = {
        "bmjax": [found([40.0, 50.0, 60.0], compile_s=9.0), found([50.0], compile_s=1)],
        "torch:contiguous": [found([100.0]), found([100.0])],
        "torch:contiguous+malloc": [found([25.0]), found([20.0])],
    }
    return driver.make_rows(name, case, results, settings=SETTINGS)


def test_the_ratio_is_that_to_the_peers_best_setting():
    (row,) = sample_rows()
    assert row.peer == "torch" and row.peer_setting == "contiguous+malloc"
    assert row.ratio == pytest.approx((50 / 25 + 50 / 20) / 2)
    assert row.ratio_default == pytest.approx(0.5)
    assert (row.median_ms, row.n, row.rounds) == (50.0, 4, 2)
    assert (row.compile_cold_s, row.compile_warm_s) == (9.0, 1.0)
    assert row.gflop_per_s == pytest.approx(40)
    assert row.fraction_of_matmul == pytest.approx(0.4)


def test_after_the_first_turn_a_peer_goes_on_with_its_default_and_its_best(monkeypatch):
    times_ms = {
        "contiguous": 5.0,
        "channels_last": 4.0,
        "contiguous+malloc": 3.0,
    }
    turns = []

    def spawn(name, case, impl, scratch, settings):
        turns.append(impl)
        return found([times_ms.get(impl.partition(":")[2], 9.0)])

    monkeypatch.setattr(driver, "_spawn", spawn)
    settings = dataclasses.replace(SETTINGS, rounds=3)
    (row,) = driver.run_case("step", "net", peers=["torch"], settings=settings)
    assert row.peer_setting == "contiguous+malloc" and row.ratio == pytest.approx(3)
    assert turns[-3:] == ["bmjax", "torch:contiguous", "torch:contiguous+malloc"]
    assert len(turns) == 7 + 3 + 3
    assert len(row.peer_settings_ms) == 6


def test_another_network_is_no_peer():
    results = {"bmjax": [found([1.0])], "flax:stock": [found([1.0], num_params=8)]}
    with pytest.raises(ValueError, match="8 parameters and ours 7"):
        driver.make_rows("step", "net", results, settings=SETTINGS)


def test_a_row_with_a_wrong_value_is_refused():
    (row,) = sample_rows()
    with pytest.raises(ValueError, match="step/PlainUNet: median_ms is 'fast'"):
        dataclasses.replace(row, median_ms="fast")


def test_tables_show_the_newest_row_of_each_case_and_repeat_themselves(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nstale\n{tables.END}\nafter\n")
    (old,) = sample_rows()
    new = dataclasses.replace(old, median_ms=48.0, ratio=0.75)
    points = [
        dataclasses.replace(
            new,
            bench="scaling",
            case=f"voxels {x}",
            peer=None,
            facts={"series": "voxels", "x": x},
            median_ms=0.5 * x**1.5,
        )
        for x in (4, 16, 64)
    ]
    rows.append([old, new, *points], tmp_path / "results")
    arguments = ["--results", str(tmp_path / "results"), "--readme", str(readme)]
    tables.main(arguments)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "stale" not in text and "| 48 (43 to 57) |" in text and "**0.75**" in text
    assert "Time grows with voxels to the power 1.50" in text
    plots = {p.name: p.read_bytes() for p in (tmp_path / "plots").iterdir()}
    assert set(plots) == {"cpu-avx2-ratio.svg", "cpu-avx2-growth.svg"}
    tables.main(arguments)
    assert readme.read_text() == text
    assert {p.name: p.read_bytes() for p in (tmp_path / "plots").iterdir()} == plots


def test_the_readme_holds_exactly_the_committed_results(tmp_path):
    text = (ROOT / "benchmarks/README.md").read_text()
    copy = tmp_path / "README.md"
    copy.write_text(text)
    tables.main(["--readme", str(copy)])
    assert copy.read_text() == text


def test_a_case_named_in_full_is_run_without_those_that_contain_its_name():
    def chosen(text):
        args = argparse.Namespace(quick=True, large=False, case=text)
        return [case for _, case in __main__._cases("sliding", args)]

    assert chosen("tiny") == ["tiny"]
    assert chosen("tin") == ["tiny", "tiny, flips"]
    assert chosen("flips") == ["tiny, flips"]


def test_a_peer_asked_for_but_absent_is_a_usage_error(monkeypatch, capsys, tmp_path):
    absent = suite.Peer(module="scipy", packages=("no_such",), settings={"default": {}})
    monkeypatch.setitem(suite.PEERS, "scipy", absent)
    arguments = ["metrics", "--quick", "--case", "components", "--out", str(tmp_path)]
    assert __main__.main([*arguments, "--peers", "scipy"]) == 2
    assert "peer scipy needs no_such" in capsys.readouterr().err
    assert __main__.main([*arguments, "--peers", "nobody"]) == 2
    assert "unknown peers nobody" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_process_of_its_own_gives_the_row_of_ours_and_a_peer(capsys, tmp_path):
    arguments = ["metrics", "--quick", "--case", "components", "--json"]
    arguments += ["--peers", "scipy", "--out", str(tmp_path)]
    assert __main__.main(arguments) == 0
    row = rows.Row.from_json(capsys.readouterr().out)
    assert row.peer == "scipy" and row.ratio > 0
    assert [r.to_json() for r in rows.read(tmp_path)] == [row.to_json()]


def test_the_script_for_gpu_hosts_runs_here(tmp_path):
    script = [ROOT / "launch/bench_gpu.sh", "--quick", "--case", "dice of"]
    done = subprocess.run(
        ["bash", *script, "--out", tmp_path], capture_output=True, text=True, check=True
    )
    assert "metrics / dice of" in done.stdout
    assert len(list(rows.read(tmp_path))) == 1


def test_the_budget_counts_parameters_and_keeps_activations_in_proportion(brats_plan):
    import bmjax

    raw = bmjax.load(ROOT / "configs/nnunet_default.py")
    small = budget.estimate(raw.resolve(brats_plan), brats_plan)
    experiment = raw.replace({"data.batch_size": 4}).resolve(brats_plan)
    large = budget.estimate(experiment, brats_plan)
    image = jnp.zeros((1, *brats_plan.patch_size, 4))
    variables = jax.eval_shape(experiment.model.init, jax.random.key(0), image)
    assert small.params == small.grads == 4 * programs.count(variables)
    assert small.optimizer >= small.params  # momentum
    assert large.activations == pytest.approx(2 * small.activations, rel=0.01)
    remat = raw.replace({"model.use_remat": True}).resolve(brats_plan)
    assert budget.estimate(remat, brats_plan).activations < small.activations
