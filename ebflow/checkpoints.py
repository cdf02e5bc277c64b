"""The checkpoints of a training: the last two and the best, any of which may be found damaged."""

__all__ = ["Checkpoints"]

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import check, read
from .errors import BadInput

if TYPE_CHECKING:
    from .train import Trainer

KEPT = 2
"""Latest checkpoints that are kept: one to go on from, one in case that is damaged."""


class Checkpoints:
    """The checkpoints of one training, by their steps; one process writes at a time.

    Kept are the latest two, and what each of them needs: the best one by validation so far, which
    a training that goes on does not make again.

    Arguments:
        folder: Where they are; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def save(self, trainer: "Trainer") -> None:
        """Writes a checkpoint, and removes those that are not needed any more.

        Call it on all workers, and whenever a validation is the best.

        Raises:
            OSError: If it cannot be written, as on a full disk; those before stay.
        """
        trainer.save(str(self.path(trainer.step)))
        if trainer.shard[0] == 0:
            self._prune(trainer.step)

    def newest(self) -> tuple[int | None, str]:
        """Returns the latest step from which a training can go on, None if there is none.

        Reads all of it, and of the best checkpoint before it, once.

        Returns:
            The step; and what is damaged beyond it, in one line, empty if nothing is.
        """
        found, damaged = None, []
        for step in sorted(self._steps(), reverse=True):
            try:
                self._check(step)
            except BadInput as error:
                damaged.append(str(error))
            else:
                found = step
                break
        if not damaged:
            return found, ""
        goes_on = "begins anew" if found is None else f"goes on from step {found}"
        return found, f"{'; '.join(damaged)}; training {goes_on}"

    def _check(self, step: int) -> None:
        """Raises BadInput unless a step's checkpoint, and the best one up to it, are sound."""
        best = check(self.path(step))["best_step"]
        if best != step:
            check(self.path(best))

    def _prune(self, step: int) -> None:
        """Removes all that the latest do not need, and what is beyond the present step."""
        latest = [s for s in sorted(self._steps(), reverse=True) if s <= step][:KEPT]
        needed = set(latest)
        for kept in latest:
            with suppress(BadInput):
                needed.add(read(self.path(kept), only=()).state["best_step"])
        paths = {self.path(s) for s in needed}
        for path in self.folder.iterdir():
            if path not in paths:
                shutil.rmtree(path)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return [int(name) for name in names if name.isdigit()]
