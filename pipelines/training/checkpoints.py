"""The checkpoints from which a training resumes to the bit."""

import shutil
from contextlib import suppress
from pathlib import Path

from ebflow.checkpoint import UNFIT, check, read, write
from ebflow.errors import BadInput
from pipelines.training.flow_training import FlowTraining

LATEST = 2
"""Latest checkpoints that are kept: one to resume from, one in case that is corrupt."""


class Checkpoints:
    """The checkpoints of one training, by their steps; one process writes at a time.

    The latest two stay, and the best checkpoint by validation before each of them, which a resumed
    training does not compute again.

    Arguments:
        folder: Their folder; the first checkpoint creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def save(self, training: FlowTraining) -> None:
        """Writes a checkpoint, and removes those that are not needed any more.

        Call it on all workers, and whenever a validation is the best.

        Raises:
            OSError: if it cannot be written, as on a full disk; earlier ones stay.
        """
        save_training(training, self.path(training.step))
        if training.shard[0] == 0:
            self._prune(training.step)

    def newest(self) -> tuple[int | None, str]:
        """Returns the latest step from which a training can resume, None if there is none.

        Reads all of it, and of the best checkpoint before it. Removes corrupt ones after it, so
        that they count for none of the latest.

        Returns:
            The step; and one line on corrupt checkpoints, empty if there are none.
        """
        corrupt = []
        for step in sorted(self._steps(), reverse=True):
            checked = step
            try:
                checked = check(self.path(step))["progress"]["best_step"]
                check(self.path(checked))
            except BadInput as error:
                corrupt.append(str(error))
                if checked == step:
                    shutil.rmtree(self.path(step))
            else:
                line = f"{'; '.join(corrupt)}; training resumes from step {step}"
                return step, line if corrupt else ""
        return None, f"{'; '.join(corrupt)}; training starts again" if corrupt else ""

    def _prune(self, step: int) -> None:
        """Removes checkpoints that the latest do not need, and those of later steps."""
        latest = [s for s in sorted(self._steps(), reverse=True) if s <= step][:LATEST]
        needed = {self.path(s) for s in latest}
        for path in {*needed}:
            with suppress(BadInput):
                needed.add(self.path(read(path, only=()).state["progress"]["best_step"]))
        for path in {*self.folder.iterdir()} - needed:
            shutil.rmtree(path)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return [int(name) for name in names if name.isdigit()]


def save_training(training: FlowTraining, folder: str | Path) -> None:
    """Writes the checkpoint of a training; call it on all workers, of which the first writes."""
    with training.clock("checkpoint"):
        checkpoint = training.pack()
        if training.shard[0] == 0:
            write(folder, checkpoint)


def resume(training: FlowTraining, folder: str | Path) -> None:
    """Resumes a training from a checkpoint of an equal one.

    Raises:
        BadInput: if it is corrupt, of other data, or does not fit this training.
    """
    saved = read(folder)
    for name, expected in training.identity.items():
        actual = saved.state.get("training", {}).get(name)
        if actual != expected:
            found = f"a training with {name} {actual}"
            raise BadInput(file=folder, found=found, expected=expected)
    try:
        training.unpack(saved)
    except UNFIT as error:
        raise BadInput(f"does not fit this training: {error!r}", file=folder) from error
