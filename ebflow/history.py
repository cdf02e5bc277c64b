"""The metrics that a training recorded."""

__all__ = ["History"]

from typing import Any


class History(list[dict[str, Any]]):
    """The events of a training, one dictionary each; ``pandas.DataFrame(history)`` reads it.

    An event has ``step``, ``kind`` (``log`` or ``validate``), ``architecture`` (``fit`` may train
    two; the events of the returned flow are the last) and metrics by name, in nats and seconds.
    """

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
