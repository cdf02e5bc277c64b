"""What a training told, row by row."""

__all__ = ["History"]

from typing import Any


class History(list[dict[str, Any]]):
    """What a training told, a row an event, as pandas takes it.

    A row has ``step``, ``kind`` (``log`` or ``validate``) and metrics by name, in nats and
    seconds.
    """

    def plot(self, axes: object = None) -> object:
        """Draws the training and the validation NLL over the steps; returns matplotlib's axes.

        Raises:
            ValueError: if there is nothing to draw.
        """
        import matplotlib.pyplot as plt

        if not self:
            raise ValueError(
                "history: found no row, expected those of a training: ebflow.fit writes them, and "
                "a flow that was loaded has none"
            )
        axes = plt.subplots()[1] if axes is None else axes
        for name, label in (("train/nll", "training NLL"), ("val/nll", "validation NLL")):
            rows = [(row["step"], row[name]) for row in self if name in row]
            axes.plot(*zip(*rows, strict=True), label=label, marker=".")
        axes.set(xlabel="step", ylabel="nats")
        axes.legend()
        return axes
