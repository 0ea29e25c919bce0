"""The augmentation of a batch on the device, with its default probabilities."""

from pathlib import Path

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ()
CASES = {
    f"{'x'.join(map(str, net.patch_size))} b{net.batch_size}": net
    for net in (nets.PLAIN, nets.UNET2D)
}
QUICK = {"8x8x8 b2": nets.TINY}
LARGE = {"128x128x128 b2": next(iter(nets.LARGE.values()))}


def ours(net: nets.Net, *, scratch: Path) -> Work:
    import jax

    from benchmarks.programs import compiled, draw_batch
    from bmjax.augment import AugmentPolicy

    policy = AugmentPolicy()
    batch = jax.device_put(draw_batch(net))

    def augment(batch, seed):
        keys = jax.random.split(jax.random.key(seed), net.batch_size)
        return policy(batch["image"], batch["labels"], keys=keys)

    program, compile_s = compiled(jax.jit(augment), batch, 0)
    seeds = iter(range(1_000_000))  # another draw each time
    return Work(
        call=lambda: jax.block_until_ready(program(batch, next(seeds))),
        compile_s=compile_s,
    )
