"""Saved training states: atomic, verified, without pickle. The only home of orbax.

A checkpoint of step s is the folder `s/` with three items: `variables` (parameters and
model statistics), `optimizer` (everything else of the state) and `meta` (JSON: sampler
cursor, scores, a digest of every array). A folder appears under its final name only
when all of it is written; what a killed run left behind is removed at the next start.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

logging.getLogger("absl").setLevel(logging.ERROR)
_LONGEST_CAUSE = 300  # a message of orbax may list each array


@dataclass(frozen=True)
class Restored:
    """One checkpoint read back.

    Attributes:
      step: number of updates done.
      variables: parameters and model statistics.
      optimizer: the rest of the state; None where only variables were asked for.
      meta: sampler cursor and scores.
    """

    step: int
    variables: Any
    optimizer: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they live.
      keep_last: how many of the newest are kept.
      is_read_only: open for reading; nothing is created or cleaned.
    """

    def __init__(
        self, folder: Path, *, keep_last: int = 2, is_read_only: bool = False
    ) -> None:
        if is_read_only and not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no checkpoints; expected a run folder made by `bmjax train`"
            )
        if not is_read_only:
            folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _remove_unfinished(folder)
        self._folder = folder
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(keep_last),
                managers.BestN(
                    get_metric_fn=lambda scores: scores["score"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda scores: scores["score"],
            best_mode="max",
            enable_async_checkpointing=False,
            read_only=is_read_only,
            create=False,
            multiprocessing_options=_alone(),
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(
        self,
        step: int,
        *,
        variables: Any,
        optimizer: Any,
        meta: Mapping[str, Any],
        score: float | None = None,
    ) -> None:
        """Write one checkpoint; returns when it is on disk.

        Args:
          step: number of updates done.
          variables: pytree of parameters and model statistics.
          optimizer: pytree of the rest.
          meta: JSON-safe facts to find again.
          score: higher is better; decides which checkpoint is `best`.

        Raises:
          OSError: it could not be written whole.
        """
        # numpy, so that orbax does not ask other processes for their parts
        variables, optimizer = jax.device_get((variables, optimizer))
        digests = {"variables": digest(variables), "optimizer": digest(optimizer)}
        items = ocp.args.Composite(
            variables=ocp.args.StandardSave(variables),
            optimizer=ocp.args.StandardSave(optimizer),
            meta=ocp.args.JsonSave({**meta, "digests": digests}),
        )
        metrics = None if score is None else {"score": score}
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise OSError(
                f"{self._folder}: the checkpoint of step {step} could not be written; "
                "those before it are whole. Free some space, or permit writing, and "
                f"run the same command again. The system said: {error}"
            ) from error

    def latest(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def count(self) -> int:
        """How many there are."""
        return len(self._manager.all_steps())

    def best(self) -> int | None:
        """Step of the checkpoint with the best score; the newest if none has one."""
        return self._manager.best_step() or self.latest()

    def restore(self, step: int, *, variables: Any, optimizer: Any) -> Restored:
        """Read a whole checkpoint into numpy arrays, whatever devices it was saved on.

        Args:
          step: which one.
          variables: pytree of arrays like those that were saved.
          optimizer: the same of the rest.

        Raises:
          ValueError: the arrays on disk are not those that were written, or not like
            those given.
        """
        folder = self._folder / str(step)
        with self._explained(
            step,
            "does not hold what this experiment's network and optimiser need, or is "
            "damaged; go on with the experiment that it was saved by, begin another "
            f"run with --origin, or remove the folder {folder} to use the checkpoint "
            "before it",
        ):
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardRestore(_as_numpy(variables)),
                    optimizer=ocp.args.StandardRestore(_as_numpy(optimizer)),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        self._verify(step, found)
        return Restored(step, found["variables"], found["optimizer"], found["meta"])

    def restore_variables(self, step: int) -> Restored:
        """Read parameters and model statistics alone, as numpy arrays on the host.

        Raises:
          ValueError: the arrays on disk are not those that were written.
        """
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
        damaged = (
            "is damaged or not whole; copy it again, or remove the folder "
            f"{self._folder / str(step)} to use the checkpoint before it"
        )
        with (
            ocp.Checkpointer(handler, multiprocessing_options=_alone()) as reader,
            self._explained(step, damaged),
        ):
            meta = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )["meta"]
            path = self._folder.resolve() / str(step) / "variables"
            listed = reader.metadata(path).item_metadata
            if listed is None:
                raise ValueError("The list of its arrays cannot be read.")
            as_numpy = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), listed.tree
            )
            variables = reader.restore(path, restore_args=as_numpy)
        self._verify(step, {"variables": variables, "meta": meta})
        return Restored(step, variables, None, meta)

    def close(self) -> None:
        """Finish all writing."""
        self._manager.close()

    @contextmanager
    def _explained(self, step: int, text: str) -> Iterator[None]:
        """Say in words what orbax met while it read."""
        try:
            yield
        except (KeyError, ValueError, OSError) as error:
            cause = str(error).partition("\n")[0][:_LONGEST_CAUSE]
            raise ValueError(
                f"{self._folder / str(step)}: {text}. The cause: {cause}"
            ) from error

    def _verify(self, step: int, found: Mapping[str, Any]) -> None:
        for item, expected in found["meta"]["digests"].items():
            if item in found.keys() and digest(found[item]) != expected:
                raise ValueError(
                    f"{self._folder / str(step) / item}: its arrays differ from those "
                    "that were saved (the disk or a copy damaged them); remove the "
                    f"folder {self._folder / str(step)} to use the checkpoint before it"
                )


def _remove_unfinished(folder: Path) -> None:
    # orbax would do so too, but in the background, beside the next save
    for left in folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
        shutil.rmtree(left)


def digest(tree: Any) -> str:
    """Short hash of names, shapes, types and bytes of all arrays of a pytree."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        found.update(_name(path).encode())
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(
        str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part))))
        for part in path
    )


def _as_numpy(tree: Any) -> Any:
    # shapes and types are what orbax looks at; nothing is copied from the devices
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Each process reads for itself, and the first one writes: all hold the same."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own,
        active_processes={own},
        barrier_sync_key_prefix=f"process_{own}",
    )
