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


def devices_for(batch_size: int, num_devices: int | None) -> list[Any]:
    """The devices that share a batch.

    Args:
      batch_size: samples of a batch.
      num_devices: how many; None takes all, of the parts of a CPU as many as divide
        the batch.

    Raises:
      ValueError: there are not so many.
    """
    devices = jax.devices()
    if num_devices is None and devices[0].platform == "cpu":
        num_devices = math.gcd(batch_size, len(devices))
    if num_devices is not None and not 1 <= num_devices <= len(devices):
        raise ValueError(
            f"{num_devices} devices asked for, but JAX found {len(devices)} "
            f"({devices[0].platform}); give --num-devices from 1 to {len(devices)}"
        )
    return devices[:num_devices]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over all devices, or over those given."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def put_batch(batch: Any, mesh: Mesh, *, parallel: Parallel = "jit") -> Any:
    """Spread the first axis of host arrays over the devices of the mesh.

    Args:
      batch: arrays of the whole batch.
      mesh: from `data_mesh`.
      parallel: `jit` makes one sharded array, `pmap` an axis of devices in front.

    Raises:
      ValueError: the batch does not divide by the number of devices.
    """
    num_devices = mesh.devices.size
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


def parallelise(step: Step, mesh: Mesh, *, parallel: Parallel = "jit") -> Step:
    """Compile `step(state, batch, *, axis_name)` for all devices of the mesh.

    Args:
      step: pure; returns `(state, metrics)`, both the same on every device.
      mesh: from `data_mesh`.
      parallel: `jit` shards one program; `pmap` runs one program per device.

    Returns:
      `step(state, batch)` for batches from `put_batch`; `jit` donates the state.
    """
    if parallel == "pmap":
        return jax.pmap(
            partial(step, axis_name=DATA_AXIS),
            axis_name=DATA_AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=list(mesh.devices.flat),
        )
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.jit(
        partial(step, axis_name=None),
        donate_argnums=0,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=_CPU_OPTIONS if is_cpu else None,
    )


def samplewise(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`function` of batched arrays, within `jit`, on each device's own samples.

    For what treats samples one after the other, which a sharded batch would otherwise
    have to be gathered for. Under `pmap` each device has its own samples anyway.

    Args:
      function: treats each sample of its arguments (arrays or trees) by itself.
      mesh: from `data_mesh`.
    """
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
