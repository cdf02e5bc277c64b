"""The report of a training: why it ended, and what it reached."""

__all__ = ["Report"]

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """The outcome of a training; ``print`` shows it.

    Attributes:
        ended: Why training ended: ``patience`` (no better validation for a while), ``steps`` or
            ``seconds`` (their limit), ``diverged`` (became non-finite twice) or ``interrupted``.
        reason: The same in a sentence.
        epochs: Passes over the training rows.
        best_step: The step of the flow that is returned; 0: its start.
        nll: The validation NLL of that flow, in nats.
        seconds: Seconds of the whole fit, preprocessing and validations included.
        architecture: The name of the architecture; empty for a flow of one's own.
        recipe: The settings of the training by name.
        replaced: True if a dense network replaced the default one, which was worse.
        warnings: Warnings of the training.
    """

    ended: str
    reason: str
    steps: int
    epochs: float
    best_step: int
    nll: float
    seconds: float
    architecture: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    replaced: bool = False
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"ended by {self.ended}: {self.reason}",
            f"{self.steps} steps ({self.epochs:.1f} epochs) in {self.seconds:.1f} s",
            f"best validation NLL {self.nll:.4f} nats, at step {self.best_step}",
        ]
        if self.architecture:
            instead = ", in place of the default network" if self.replaced else ""
            lines.append(f"architecture: {self.architecture}{instead}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])
