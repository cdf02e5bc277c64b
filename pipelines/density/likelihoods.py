"""The likelihood of a flow and of the baselines: metrics, lines of a table, warnings."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.data.manifest import Manifest
from pipelines.data.splits import SELECTION

# Headings of ``Line.cells``.
HEADINGS = ("", "test NLL", "bits/dim", "flow − this", "validation NLL")

# Names of the baselines in metrics, and of the flow's gain over each.
BASELINES = {"gaussian": "gain", "mixture": "gain_over_mixture"}

# By split: the prefix of the flow's metrics, and the text after a baseline's name.
SPLITS = {
    "test": ("test/", ""),
    "validation": ("best/val_", "val_"),
    SELECTION: ("select/", "select_"),
}

# Least difference from a baseline, in nats, that raises a warning: the last digit shown.
LEAST = 0.01


def prefix(density: str, split: str = "test") -> str:
    """Returns the prefix of the metrics of the ``flow`` or a baseline on a split."""
    flow, baseline = SPLITS[split]
    return flow if density == "flow" else f"baseline/{density}_{baseline}"


class Line(NamedTuple):
    """A density in the metrics of an evaluation."""

    density: str  # ``flow``, or the name of a baseline in metrics
    name: str  # its name for people
    numbers: Mapping[str, Any]  # the metrics

    def value(self, key: str, split: str = "test") -> float | None:
        """Returns a metric of the density."""
        return self.numbers[f"{prefix(self.density, split)}{key}"]

    @property
    def difference(self) -> tuple[float, float | None]:
        """The flow's mean NLL minus this baseline's, and its error, None of a single row."""
        gain = f"test/{BASELINES[self.density]}"
        return -self.numbers[gain], self.numbers[f"{gain}_se"]

    @property
    def cells(self) -> tuple[str, ...]:
        """The line of a table with ``HEADINGS``."""
        apart = with_error(*self.difference, "+.2f") if self.density in BASELINES else ""
        validation = f"{self.value('nll', 'validation'):.2f}"
        nll = with_error(self.value("nll"), self.value("nll_se"))
        return self.name, nll, f"{self.value('bpd'):.3f}", apart, validation

    @property
    def compared(self) -> str:
        """The flow's likelihood compared with this baseline's, in words."""
        difference, error = self.difference
        size = abs(difference)
        side, word = ("lower", "better") if difference < 0 else ("higher", "worse")
        if error is None:
            return f"{side} than that of a {self.name} on one row, which decides nothing"
        if max(size, error) < 5e-5:
            return f"that of a {self.name}"
        digits = 2 if error >= 0.01 else 4
        apart = f"by {size:.{digits}f} ± {error:.{digits}f} nats a row"
        if size <= 2 * error:
            return f"within two standard errors of that of a {self.name} ({side} {apart})"
        return f"{side} than that of a {self.name}, {apart}: the flow is {word}"


def lines(numbers: Mapping[str, Any]) -> list[Line]:
    """Returns the flow and the baselines."""
    given = " given the context" if numbers["baseline/contexts"] else ""
    count = int(numbers["baseline/mixture_components"])
    kind = "" if numbers["baseline/mixture_full"] else "diagonal "
    mixture = f"mixture of {count} {kind}Gaussian{'' if count == 1 else 's'}"
    names = {"gaussian": "full-covariance Gaussian" + given, "mixture": mixture + given}
    return [Line(*pair, numbers) for pair in ({"flow": "flow"} | names).items()]


def better(numbers: Mapping[str, Any]) -> Line:
    """Returns the baseline with the lower test NLL."""
    return min(lines(numbers)[1:], key=lambda line: line.value("nll"))


def with_error(value: float, error: float | None, form: str = ".2f") -> str:
    """Returns a number and its standard error, which a single row does not have."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")


def warnings(
    numbers: Mapping[str, float], manifest: Manifest, model: Mapping[str, str]
) -> Iterator[str]:
    """Yields problems that a reader must not miss, from the metrics of training and evaluation.

    ``model`` has the names of its architecture and of its base.
    """
    architecture = model["architecture"]
    if numbers["train/best_step"] == 0:
        yield (
            "no validation was better than the start: the checkpoint is the untrained flow. Lower "
            "--train.lr, train for longer, or give the anchor more weight"
        )
    rival = better(numbers)
    difference, error = rival.difference
    if error is not None and difference > max(error, LEAST):
        remedies = ["train for longer (--train.steps, --train.max-seconds)"]
        if model["base"] != "mixture" and architecture != "pixelcnn":
            remedies.append("start from the mixture (--model.base mixture)")
        if architecture not in ("coupling", "pixelcnn") and manifest.width > 1:
            remedies.append("try couplings (--model.architecture coupling)")
        apart = f"{difference:.2f} ± {error:.2f} nats"
        yield f"the flow is worse than a {rival.name}, by {apart}: {', or '.join(remedies)}"
    if manifest.levels is not None and numbers["test/bpd"] > math.log2(manifest.levels):
        yield (
            f"{numbers['test/bpd']:.3g} bits/dim: the flow is worse than a uniform one over "
            f"{manifest.levels} levels. With few training rows raise --preprocess.shrinkage"
        )
