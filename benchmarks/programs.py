"""Our networks as compiled programs: the real code path, everything else removed."""

from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.nets import CHANNELS, NUM_CLASSES, REGIONS, Net
from benchmarks.timing import Work
from bmjax import losses, models, sharding
from bmjax.compilation import return_memory
from bmjax.fold_mesh import SideBySide, fold_mesh, rows
from bmjax.training import Optimizer, initial_state, make_train_step


def model_of(net: Net) -> models.Network:
    """The network of ours."""
    options = {"num_classes": NUM_CLASSES, "dtype": net.dtype}
    if net.kind == "UNet2D":
        return models.UNet2D(features=net.features, **options)
    options["use_remat"] = net.use_remat
    if net.kind == "SegResNet":
        return models.SegResNet(
            num_features=net.features[0],
            num_blocks_down=net.num_blocks,
            num_blocks_up=(1,) * (len(net.num_blocks) - 1),
            **options,
        )
    if net.kind == "ResEncUNet":
        options["num_blocks"] = net.num_blocks
    return getattr(models, net.kind)(features=net.features, **options)


def draw_batch(net: Net) -> dict[str, np.ndarray]:
    """Normal noise and random labels; the arithmetic does not depend on them."""
    rng = np.random.default_rng(0)
    size = (net.batch_size, *net.patch_size)
    return {
        "image": rng.standard_normal((*size, CHANNELS), np.float32),
        "labels": rng.integers(0, 4, size).astype(np.int8),
    }


def compiled(function: Any, *args: Any) -> tuple[Any, float]:
    """The executable of a jitted function, and the time from tracing on [s]."""
    start = perf_counter()
    return function.lower(*args).compile(), perf_counter() - start


def gflop(function: Callable[..., Any], *args: Any) -> float:
    """Arithmetic of a function, counted by XLA in the program for a GPU.

    There convolutions are single operations. In the program for a CPU they are loops,
    of which XLA counts the body once.
    """
    traced = jax.jit(function).trace(*args)
    cost = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return cost["flops"] / 1e9


def count(params: Any) -> int:
    """Number of parameters; must be that of a peer that claims to be the same net."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _step(
    model: models.Network, *, recompute_norms: bool = False
) -> tuple[Callable[..., Any], Any]:
    """The training step without augmentation, and its optimiser."""
    optimizer = Optimizer().transformation()
    step = make_train_step(
        model=model,
        loss=losses.DiceBCE(batch_dice=True),
        augment=lambda image, labels, *, keys: (image, labels),
        optimizer=optimizer,
        regions=REGIONS,
        seed=0,
        recompute_norms=recompute_norms,
    )
    return step, optimizer


def train_step(
    net: Net, *, model: models.Network | None = None, num_devices: int | None = None
) -> Work:
    """One update: forward, loss, gradients, clipping, momentum, new parameters.

    Args:
      net: the network and its input.
      model: this one instead of ours.
      num_devices: devices that share the batch; None as `bmjax train` has it.
    """
    return_memory()
    model = model or model_of(net)
    function, state, batch = placed_step(net, model, num_devices=num_devices)
    program, compile_s = compiled(function, state, batch)
    num_params = count(state.variables["params"])
    if net.use_remat:  # to compute a block again is not useful work
        model = model.clone(use_remat=False)
    work_gflop = gflop(_step(model)[0], *jax.eval_shape(lambda *a: a, state, batch))

    def call() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready((state, metrics))

    facts = {"num_params": num_params} | memory_mib(program)
    return Work(call=call, compile_s=compile_s, gflop=work_gflop, facts=facts)


def vmapped_train_step(net: Net, num_nets: int) -> Work:
    """One update of several networks, each with its own batch, in one program."""
    return_memory()
    mesh = _mesh(net, None)
    one, optimizer = _step(model_of(net), recompute_norms=sharding.is_cpu(mesh))

    def step(state: Any, batch: Any, *, axis_name: str | None) -> tuple[Any, Any]:
        return jax.vmap(partial(one, axis_name=axis_name))(state, batch)

    batch = draw_batch(net)
    variables = jax.jit(model_of(net).init)(jax.random.key(0), batch["image"][:1])
    state = initial_state(variables, optimizer)
    copies = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * num_nets), state)
    state = sharding.replicate(copies, mesh)
    spread = NamedSharding(mesh, PartitionSpec(None, sharding.DATA_AXIS))
    batch = {
        name: jax.device_put(np.stack([values] * num_nets), spread)
        for name, values in batch.items()
    }
    program, compile_s = compiled(sharding.parallelise(step, mesh), state, batch)

    def call() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready((state, metrics))

    return Work(call=call, compile_s=compile_s, facts=memory_mib(program))


def side_by_side_train_step(net: Net, num_nets: int) -> Work:
    """The same, each network on a row of devices of its own, as `train_folds` does."""
    return_memory()
    sharding.split_cpu()
    mesh = fold_mesh(num_nets, net.batch_size)
    one, optimizer = _step(model_of(net), recompute_norms=sharding.is_cpu(mesh))
    batch = draw_batch(net)
    variables = jax.jit(model_of(net).init)(jax.random.key(0), batch["image"][:1])
    states = [
        sharding.replicate(initial_state(variables, optimizer), row)
        for row in rows(mesh)
    ]
    folds = SideBySide(mesh, states[0])
    batches = folds.join([sharding.put_batch(batch, row) for row in rows(mesh)])
    state = folds.stack(states)
    program, compile_s = compiled(folds.parallelise(one), state, batches)

    def call() -> None:
        nonlocal state
        state, metrics = program(state, batches)
        jax.block_until_ready((state, metrics))

    return Work(call=call, compile_s=compile_s, facts=memory_mib(program))


def placed_step(
    net: Net, model: models.Network, *, num_devices: int | None = None
) -> tuple[Any, Any, Any]:
    """The training step as `bmjax train` compiles it, with a state and a batch."""
    mesh = _mesh(net, num_devices)
    step, optimizer = _step(model, recompute_norms=sharding.is_cpu(mesh))
    batch = draw_batch(net)
    variables = jax.jit(model.init)(jax.random.key(0), batch["image"][:1])
    state = sharding.replicate(initial_state(variables, optimizer), mesh)
    return (
        sharding.parallelise(step, mesh),
        state,
        sharding.put_batch(batch, mesh),
    )


def _mesh(net: Net, num_devices: int | None) -> jax.sharding.Mesh:
    if num_devices is None:
        sharding.split_cpu()
    return sharding.data_mesh(sharding.devices_for(net.batch_size, num_devices))


def forward(
    net: Net, *, model: models.Network | None = None, num_devices: int | None = None
) -> Work:
    """The first output of a network in inference.

    Args:
      net: the network and its input.
      model: this one instead of ours.
      num_devices: devices that share the batch; None as `bmjax predict` has it.
    """
    return_memory()
    model = model or model_of(net)
    mesh = _mesh(net, num_devices)
    image = draw_batch(net)["image"]
    variables = jax.jit(model.init)(jax.random.key(0), image[:1])
    variables = sharding.replicate(variables, mesh)
    image = sharding.put_batch(image, mesh)
    function = partial(first_output, model)
    program, compile_s = compiled(jax.jit(function), variables, image)
    return Work(
        call=lambda: jax.block_until_ready(program(variables, image)),
        compile_s=compile_s,
        gflop=gflop(function, *jax.eval_shape(lambda *a: a, variables, image)),
        facts={"num_params": count(variables["params"])},
    )


def first_output(model: models.Network, variables: Any, image: jax.Array) -> jax.Array:
    """Logits at full resolution."""
    outputs: Any = model.apply(variables, image, is_training=False)
    return outputs[0]


@cache
def output_of(model: models.Network) -> Callable[..., jax.Array]:
    """`first_output` of a network, one function object for each."""
    return partial(first_output, model)


def memory_mib(program: Any) -> dict[str, float]:
    """What the compiler says that a program needs, by kind [MiB]."""
    stats = program.memory_analysis()
    return {
        f"{kind}_mib": getattr(stats, f"{kind}_size_in_bytes") / 2**20
        for kind in ("argument", "output", "alias", "temp")
    }


def matmul_gflop_per_s(*, is_quick: bool) -> float:
    """Rate of a large float32 matrix product, the best of five."""
    on_cpu = jax.default_backend() == "cpu"
    size = 64 if is_quick else 2048 if on_cpu else 8192
    a = jnp.ones((size, size), jnp.float32)
    product, _ = compiled(jax.jit(jnp.matmul), a, a)
    jax.block_until_ready(product(a, a))
    times = []
    for _ in range(5):
        start = perf_counter()
        jax.block_until_ready(product(a, a))
        times.append(perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9
