"""The events of a training, and their record."""

__all__ = ["Event", "History"]

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """A report of a training.

    Attributes:
        kind: ``log``, ``validate``, ``resume`` (the training became non-finite and returned to its
            best validation: events of later steps are void) or, in ``fit``, ``end``.
        best: True if this validation is the best so far.
        note: A message to the user: why the NLL has not fallen for a while, or what was not
            finite.
        text: The progress in words, if step and NLL do not show it.
        share: The share of the training that is done.
    """

    kind: str
    step: int
    metrics: dict[str, float]
    best: bool = False
    note: str = ""
    text: str = ""
    share: float = 0.0


class History(list[dict[str, Any]]):
    """The events of a training, one dictionary each; ``pandas.DataFrame(history)`` reads it.

    An event has ``step``, ``kind`` (``log`` or ``validate``), ``architecture`` (``fit`` may train
    two; the events of the returned flow are the last) and metrics by name, in nats and seconds.
    """

    def record(self, event: Event, architecture: str) -> None:
        """Adds an event, or removes the events of steps that a resumed training repeats."""
        if event.kind == "resume":
            self[:] = [row for row in self if row["step"] <= event.step]
            return
        self.append({"step": event.step, "kind": event.kind, "architecture": architecture,
                     **event.metrics})  # fmt: skip

    def plot(self, axes: object = None) -> object:
        """Plots the training and the validation NLL of the returned flow over the steps.

        Returns matplotlib's axes.

        Raises:
            ValueError: if the history is empty.
        """
        import matplotlib.pyplot as plt

        if not self:
            raise ValueError(
                "history: it is empty, because this flow was not trained in this session. "
                "ebflow.fit records a history; a loaded flow has none"
            )
        axes = plt.subplots()[1] if axes is None else axes
        last = self[-1].get("architecture")
        for name, label in (("train/nll", "training NLL"), ("val/nll", "validation NLL")):
            points = [(event["step"], event[name]) for event in self
                      if name in event and event.get("architecture") == last]  # fmt: skip
            axes.plot(*zip(*points, strict=True), label=label, marker=".")
        axes.set(xlabel="step", ylabel="nats")
        axes.legend()
        return axes
