"""The events of a training, their record, and the report of its outcome."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """A report of a training."""

    #: ``log``, ``validate``, ``resume`` (the training became non-finite and returned to its best
    #: validation: events of later steps are void) or, in ``fit``, ``end``
    kind: str
    step: int
    metrics: dict[str, float]
    best: bool = False  #: True if this validation is the best so far
    #: A message to the user: why the NLL has not fallen for a while, or what was not finite
    note: str = ""
    text: str = ""  #: The progress in words, if step and NLL do not show it
    share: float = 0.0  #: The share of the training that is done


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
            if points:  # an interruption may come before the first validation
                axes.plot(*zip(*points, strict=True), label=label, marker=".")
        axes.set(xlabel="step", ylabel="nats")
        axes.legend()
        return axes


def expected_nll(history: History, share: float) -> float:
    """Returns the validation NLL at the end, if each doubling of the steps has an equal gain."""
    rows = [row for row in history if row["step"] and "val/nll" in row]
    validated = {row["step"]: row["val/nll"] for row in rows}
    last = max(validated, default=0)
    before = max((step for step in validated if step <= last / 2), default=0)
    if not before:
        return -math.inf
    gain = (validated[before] - validated[last]) / math.log2(last / before)
    return validated[last] + gain * math.log2(share)


@dataclass(frozen=True)
class Report:
    """The outcome of a training; ``print`` shows it."""

    #: Why training ended: ``patience`` (no better validation for a while), ``steps`` or
    #: ``seconds`` (their limit), ``behind`` (a mixture of Gaussians was ahead), ``diverged``
    #: (became non-finite twice) or ``interrupted``
    ended: str
    reason: str  #: The same in a sentence
    steps: int
    epochs: float  #: Passes over the training rows
    best_step: int  #: The step of the flow that is returned; 0: its start
    nll: float  #: That of all validation rows, in nats; grids with one sample of their noise
    seconds: float  #: Seconds of the whole fit, preprocessing and validations included
    architecture: str = ""  #: The name of the architecture; empty for a flow of one's own
    recipe: dict[str, Any] = field(default_factory=dict)  #: The settings of the training by name
    chosen_by: int = 0  #: The number of random validation rows that chose the step; 0: all
    replaced: bool = False  #: True if a flow above a mixture was better than the default one
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"ended by {self.ended}: {self.reason}",
            f"{self.steps} steps ({self.epochs:.1f} epochs) in {self.seconds:.1f} s",
            f"best validation NLL {self.nll:.4f} nats, at step {self.best_step}",
        ]
        if self.chosen_by:
            lines.append(f"{self.chosen_by} random validation rows chose the step")
        if self.architecture:
            instead = ", in place of the default network" if self.replaced else ""
            lines.append(f"architecture: {self.architecture}{instead}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])
