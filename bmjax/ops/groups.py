"""Samples whose products may be summed together: those of one device."""

from math import prod

import jax


def num_groups(num_samples: int) -> int:
    """Into how many groups of neighbouring samples a batch is divided.

    Sums over a sharded batch stay apart by group, so that they cross devices once, when
    all is added. The groups are the shares of the devices of the mesh that is set while
    the program is traced (`sharding.parallelise`); without one, each sample is a group.
    Under `shard_map` the samples are those of one device already.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shared = [
        mesh.shape[name] for name in mesh.axis_names if name not in mesh.manual_axes
    ]
    groups = num_samples if mesh.empty else prod(shared)
    return groups if num_samples % groups == 0 else num_samples
