"""Where arrays live on the devices, and the reductions that cross samples.

Data parallelism has two forms with one meaning. Under `jit` the batch is one global
array sharded over the mesh, and a reduction over its first axis is global by itself.
Under `pmap` each device sees its share of the batch, and the same reduction must name
the axis of devices. A function that reduces across samples therefore takes `axis_name`,
`None` under `jit`, and goes through `mean`, `sum` or `sample_keys` of this file.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Key, PRNGKeyArray

DATA_AXIS = "data"

# In this order the step of PlainUNet, 64^3, batch 2, needs 724 MiB per half, not 1084.
_CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

# No algorithm that adds in varying order, and none chosen by timing it.
_DETERMINISTIC_OPTIONS = {"xla_gpu_deterministic_ops": True}

Parallel = Literal["jit", "pmap"]
Step = Callable[..., tuple[Any, Any]]


def mean(
    x: Float[Array, "..."], axes: tuple[int, ...], *, axis_name: str | None = None
) -> Float[Array, "..."]:
    """Mean over `axes` of all samples, on every device of `axis_name` if named."""
    local = jnp.mean(x, axes)
    return local if axis_name is None else lax.pmean(local, axis_name)


def sum(
    x: Float[Array, "..."], axes: tuple[int, ...], *, axis_name: str | None = None
) -> Float[Array, "..."]:
    """Sum over `axes` of all samples, on every device of `axis_name` if named."""
    local = jnp.sum(x, axes)
    return local if axis_name is None else lax.psum(local, axis_name)


def mean_over_devices(tree: Any, *, axis_name: str | None) -> Any:
    """Mean of each leaf over the devices of `axis_name`; the tree itself if None."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def sample_keys(
    key: PRNGKeyArray, num_samples: int, *, axis_name: str | None = None
) -> Key[Array, " b"]:
    """One key per sample of the global batch, the same however it is spread."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * num_samples
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num_samples))


def split_cpu() -> None:
    """Let the CPU count as two devices, each of which takes half of a batch.

    While one half copies, the other multiplies, so that no core waits
    (`bmjax bench scaling` measures it). It holds for processes that have not started
    JAX yet, and where the number of CPU devices was not chosen otherwise.
    """
    is_chosen = "xla_force_host_platform_device_count" in os.getenv("XLA_FLAGS", "")
    if is_chosen or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", 2)
    except RuntimeError:
        return  # JAX has started; it keeps the devices that it has


def require_platform() -> list[Any]:
    """All devices, of the platform that was asked for.

    Raises:
      RuntimeError: JAX finds none of that kind; it says so in several ways.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without a plugin
        asked = os.getenv("JAX_PLATFORMS") or "its own choice"
        cause = str(error).partition("\n")[0] or "no such platform is installed"
        raise RuntimeError(
            f"JAX_PLATFORMS: {asked} cannot be used ({cause}); install its plugin "
            "(pip install 'bmjax[cuda]') and see whether the driver finds a device "
            "(nvidia-smi), or unset JAX_PLATFORMS to compute on what there is"
        ) from error


def devices_for(batch_size: int, num_devices: int | None) -> list[Any]:
    """The devices that share a batch.

    Args:
      batch_size: samples of a batch.
      num_devices: how many, the same number of each process; None takes all, of the
        parts of a CPU as many as divide the batch.

    Raises:
      ValueError: there are not so many, or they do not divide over the processes.
    """
    devices, count = jax.devices(), jax.process_count()
    if batch_size % count:
        raise ValueError(
            f"a batch of {batch_size} samples does not divide over {count} processes; "
            f"set data.batch_size to a multiple of {count} or start fewer processes"
        )
    if num_devices is None and devices[0].platform == "cpu":
        num_devices = math.gcd(batch_size // count, len(devices) // count) * count
    if num_devices is None:
        num_devices = len(devices)
    if not 1 <= num_devices <= len(devices) or num_devices % count:
        raise ValueError(
            f"{num_devices} devices asked for, but JAX found {len(devices)} "
            f"({devices[0].platform}) in {count} processes; give --num-devices from "
            f"{count} to {len(devices)}, a multiple of {count}"
        )
    share = num_devices // count
    return [
        device
        for process in range(count)
        for device in [d for d in devices if d.process_index == process][:share]
    ]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over all devices, or over those given."""
    devices = jax.devices() if devices is None else devices
    # in this order, so that each process holds consecutive samples
    return Mesh(np.array(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def local_slots(batch_size: int) -> range:
    """Which samples of a batch the devices of this process take."""
    share = batch_size // jax.process_count()
    first = jax.process_index() * share
    return range(first, first + share)


def is_cpu(mesh: Mesh) -> bool:
    """Whether the devices of the mesh are parts of a CPU."""
    return mesh.devices.flat[0].platform == "cpu"


def put_batch(batch: Any, mesh: Mesh, *, parallel: Parallel = "jit") -> Any:
    """Spread the first axis of host arrays over the devices of the mesh.

    Args:
      batch: arrays of the whole batch; of several processes, each gives its own share
        (`local_slots`).
      mesh: from `data_mesh`.
      parallel: `jit` makes one sharded array, `pmap` an axis of devices in front.

    Raises:
      ValueError: the batch does not divide by the number of devices.
    """
    num_devices = mesh.local_mesh.devices.size
    sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(batch)}
    if any(size % num_devices for size in sizes):
        raise ValueError(
            f"batch of {sorted(sizes)} samples does not divide over {num_devices} "
            f"devices; set data.batch_size to a multiple of {num_devices} "
            "or use fewer devices (--num-devices)"
        )
    if parallel == "pmap":
        return jax.tree.map(
            lambda leaf: np.reshape(leaf, (num_devices, -1, *np.shape(leaf)[1:])), batch
        )
    sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Place a whole copy of every leaf on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def parallelise(
    step: Step,
    mesh: Mesh,
    *,
    parallel: Parallel = "jit",
    is_deterministic: bool = False,
) -> Step:
    """Compile `step(state, batch, *, axis_name)` for all devices of the mesh.

    Args:
      step: pure; returns `(state, metrics)`, both the same on every device.
      mesh: from `data_mesh`.
      parallel: `jit` shards one program; `pmap` runs one program per device.
      is_deterministic: only algorithms that give the same bytes each time.

    Raises:
      ValueError: `pmap` was asked for what only `jit` can do.

    Returns:
      `step(state, batch)` for batches from `put_batch`; `jit` donates the state.
    """
    if parallel == "pmap":
        if is_deterministic or jax.process_count() > 1:
            raise ValueError(
                "--parallel pmap is for one process and ordinary algorithms; use "
                "--parallel jit with --deterministic and with several processes"
            )
        return jax.pmap(
            partial(step, axis_name=DATA_AXIS),
            axis_name=DATA_AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=list(mesh.devices.flat),
        )

    def on_mesh(*args: Any) -> tuple[Any, Any]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # what `ops` looks at
            return step(*args, axis_name=None)

    return jax.jit(
        on_mesh,
        donate_argnums=0,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=compiler_options(mesh, is_deterministic),
    )


def compile_for(
    function: Callable[..., Any], mesh: Mesh, *, is_deterministic: bool = False
) -> Callable[..., Any]:
    """Compile for replicated and sharded arrays; each device holds the whole result."""
    return jax.jit(
        function,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=compiler_options(mesh, is_deterministic),
    )


def compiler_options(mesh: Mesh, is_deterministic: bool) -> dict[str, Any] | None:
    """What XLA is told on the devices of the mesh."""
    if is_cpu(mesh):
        return _CPU_OPTIONS  # whose algorithms are deterministic anyway
    return _DETERMINISTIC_OPTIONS if is_deterministic else None


def samplewise(
    function: Callable[..., Any], mesh: Mesh, *, parallel: Parallel = "jit"
) -> Callable[..., Any]:
    """`function` of batched arrays, within a step, on each device's own samples.

    For what treats samples one after the other, which a sharded batch would otherwise
    have to be gathered for. Under `pmap` each device has its own samples anyway.

    Args:
      function: treats each sample of its arguments (arrays or trees) by itself.
      mesh: from `data_mesh`.
      parallel: how the step is compiled.
    """
    if parallel == "pmap":
        return function
    spec = PartitionSpec(DATA_AXIS)

    def spread(*batch: Any, **named: Any) -> Any:
        call = jax.shard_map(
            lambda given, by_name: function(*given, **by_name),
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=False,  # no sample knows of another
        )
        return call(batch, named)

    return spread


def parallelise_samples(
    function: Callable[..., Any], mesh: Mesh, *, parallel: Parallel = "jit"
) -> Callable[..., Any]:
    """Compile a function of each sample for batches from `put_batch`."""
    if parallel == "pmap":
        return jax.pmap(function, devices=list(mesh.devices.flat))
    return jax.jit(samplewise(function, mesh))
