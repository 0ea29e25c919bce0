"""Several folds side by side: one program, each fold on a row of devices of its own.

The mesh has an axis of folds and one of data. Arrays of the folds follow each other
along their first axis, which the rows share out, so that no fold sees another; within
its row a fold shares each batch over the axis of data, as in `sharding`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bmjax import sharding
from bmjax.sharding import DATA_AXIS, Step

FOLD_AXIS = "fold"

_FOLDS = PartitionSpec(FOLD_AXIS)
_BATCHES = PartitionSpec((FOLD_AXIS, DATA_AXIS))


def fold_mesh(num_folds: int, batch_size: int, num_devices: int | None = None) -> Mesh:
    """A mesh of one row for each fold, its axes `fold` and `data`.

    Args:
      num_folds: how many train side by side.
      batch_size: samples of the batch of each.
      num_devices: of all folds together; None takes as many as there are, of the parts
        of a CPU as many as divide the batch.

    Raises:
      ValueError: they do not divide over the folds, or there are not so many.
    """
    devices = jax.devices()
    wanted = len(devices) if num_devices is None else num_devices
    share = wanted // num_folds
    if num_devices is None and share and devices[0].platform == "cpu":
        share = math.gcd(batch_size, share)
    is_uneven = num_devices is not None and num_devices % num_folds
    if not num_folds <= wanted <= len(devices) or is_uneven:
        raise ValueError(
            f"{num_folds} folds side by side need the same number of devices each; "
            f"{wanted} are to be shared out and JAX found {len(devices)} "
            f"({devices[0].platform}). Name fewer folds, give --num-devices a multiple "
            f"of {num_folds}, or train one after the other (launch/folds.sh)"
        )
    grid = np.array(devices[: num_folds * share]).reshape(num_folds, share)
    return Mesh(grid, (FOLD_AXIS, DATA_AXIS), axis_types=(AxisType.Auto,) * 2)


def rows(mesh: Mesh) -> tuple[Mesh, ...]:
    """The mesh of each fold alone, as from `sharding.data_mesh`."""
    return tuple(sharding.data_mesh(list(row)) for row in mesh.devices)


class SideBySide:
    """The states and batches of all folds as one, and each of them again.

    Args:
      mesh: from `fold_mesh`.
      like: state of one fold, or the shapes and types of one.
    """

    def __init__(self, mesh: Mesh, like: Any) -> None:
        self._mesh = mesh
        self._like = jax.eval_shape(lambda: like)

    def stack(self, states: Sequence[Any]) -> Any:
        """Make one state of those of all folds, where they lie.

        Args:
          states: of each fold, whole on each device of its row.
        """
        return self._joined(states, _FOLDS)

    def join(self, batches: Sequence[Any]) -> Any:
        """Make one batch of those of all folds, where they lie.

        Args:
          batches: of each fold, spread over its row by `sharding.put_batch`.
        """
        return self._joined(batches, _BATCHES)

    def part(self, state: Any, index: int) -> Any:
        """Copy the state of one fold, whole on each device of its row.

        Args:
          state: from `stack`.
          index: of the row.
        """
        row = rows(self._mesh)[index]
        place = NamedSharding(row, PartitionSpec())

        def cut(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
            by_device = {part.device: part.data for part in leaf.addressable_shards}
            parts = [
                by_device[device].reshape(like.shape).copy()
                for device in row.devices.flat
            ]
            return jax.make_array_from_single_device_arrays(like.shape, place, parts)

        return jax.tree.map(cut, state, self._like)

    def with_part(self, state: Any, index: int, one: Any) -> Any:
        """The state of all folds, that of one fold exchanged."""
        count = self._mesh.shape[FOLD_AXIS]
        states = [one if i == index else self.part(state, i) for i in range(count)]
        return self.stack(states)

    def parallelise(
        self, step: Step, *, is_deterministic: bool = False
    ) -> Callable[..., tuple[Any, Any]]:
        """Compile `step(state, batch, *, axis_name)` for all folds at once.

        Args:
          step: pure, of one fold; returns `(state, metrics)`, both the same on every
            device of its row, the metrics scalars.
          is_deterministic: only algorithms that give the same bytes each time.

        Returns:
          `step(state, batch)` for states from `stack`, which are donated, and batches
          from `join`; its metrics have an entry for each fold.
        """
        # one device alone computes to the byte what it would without other folds
        axis_name = DATA_AXIS if self._mesh.shape[DATA_AXIS] > 1 else None

        def of_one(state: Any, batch: Any) -> tuple[Any, Any]:
            alone = jax.tree.map(lambda x, y: x.reshape(y.shape), state, self._like)
            result = step(alone, batch, axis_name=axis_name)
            return jax.tree.map(jnp.atleast_1d, result)

        together = jax.shard_map(
            of_one,
            mesh=self._mesh,
            in_specs=(_FOLDS, _BATCHES),
            out_specs=_FOLDS,
            check_vma=False,  # the means over the row make its devices agree
        )
        return jax.jit(
            together,
            donate_argnums=0,
            compiler_options=sharding.compiler_options(self._mesh, is_deterministic),
        )

    def _joined(self, trees: Sequence[Any], spec: PartitionSpec) -> Any:
        """The leaves one after the other along their first axis; scalars get one."""
        place = NamedSharding(self._mesh, spec)

        def joined(*leaves: jax.Array) -> jax.Array:
            parts = [
                jnp.atleast_1d(part.data)
                for leaf in leaves
                for part in leaf.addressable_shards
            ]
            length = sum(leaf.shape[0] if leaf.ndim else 1 for leaf in leaves)
            shape = (length, *parts[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, place, parts)

        return jax.tree.map(joined, *trees)
