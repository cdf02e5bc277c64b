"""The likelihood of a flow and of the baselines: metrics, lines of a table, warnings."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config import Model
from pipelines.data.manifest import Manifest
from pipelines.data.splits import SELECTION

HEADINGS = ("", "test NLL", "bits/dim", "flow − this", "validation NLL")
"""Headings of ``Line.cells``."""

BASELINES = {"gaussian": "gain", "mixture": "gain_over_mixture"}
"""Names of the baselines in metrics, and of the flow's gain over each."""

SPLITS = {
    "test": ("test/", ""),
    "validation": ("best/val_", "val_"),
    SELECTION: ("select/", "select_"),
}
"""By split: the prefix of the flow's metrics, and the text after a baseline's name."""

LEAST = 0.01
"""Least difference from a baseline, in nats, that raises a warning: the last digit shown."""


def prefix(density: str, split: str = "test") -> str:
    """Returns the prefix of the metrics of the ``flow`` or a baseline on a split."""
    flow, baseline = SPLITS[split]
    return flow if density == "flow" else f"baseline/{density}_{baseline}"


@dataclass(frozen=True)
class Line:
    """A density on the test split.

    Attributes:
        density: ``flow``, or the name of a baseline in metrics.
        name: Its name for people.
        nll: Its negative log-likelihood in nats.
        nll_se: The standard error; None for a single row.
        bpd: Bits a dimension.
        val_nll: The negative log-likelihood of the validation split.
        difference: The flow's minus this negative log-likelihood, the mean of paired differences;
            None for the flow itself.
        difference_se: Its standard error; None for a single row.
    """

    density: str
    name: str
    nll: float
    nll_se: float | None
    bpd: float
    val_nll: float
    difference: float | None
    difference_se: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The line of a table with ``HEADINGS``."""
        difference = ""
        if self.difference is not None:
            difference = with_error(self.difference, self.difference_se, "+.2f")
        nll = with_error(self.nll, self.nll_se)
        return self.name, nll, f"{self.bpd:.3f}", difference, f"{self.val_nll:.2f}"

    @property
    def compared(self) -> str:
        """The flow's likelihood compared with this baseline's, in words."""
        size, error = abs(self.difference), self.difference_se
        side, word = ("lower", "better") if self.difference < 0 else ("higher", "worse")
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
    """Returns the lines of the flow and of the baselines, from the metrics of an evaluation."""
    found = []
    for density, name in _names(numbers).items():
        at, gain = prefix(density), numbers.get(f"test/{BASELINES.get(density)}")
        line = Line(
            density=density,
            name=name,
            nll=numbers[f"{at}nll"],
            nll_se=numbers[f"{at}nll_se"],
            bpd=numbers[f"{at}bpd"],
            val_nll=numbers[f"{prefix(density, 'validation')}nll"],
            difference=None if gain is None else -gain,
            difference_se=numbers.get(f"test/{BASELINES.get(density)}_se"),
        )
        found.append(line)
    return found


def _names(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names of the densities for people, by those in metrics."""
    given = " given the context" if numbers["baseline/contexts"] else ""
    count = int(numbers["baseline/mixture_components"])
    kind = "" if numbers["baseline/mixture_full"] else "diagonal "
    mixture = f"mixture of {count} {kind}Gaussian{'' if count == 1 else 's'}"
    gaussian = "full-covariance Gaussian"
    return {"flow": "flow", "gaussian": gaussian + given, "mixture": mixture + given}


def better(numbers: Mapping[str, Any]) -> Line:
    """Returns the baseline with the lower test NLL."""
    return min(lines(numbers)[1:], key=lambda line: line.nll)


def classified(density: str, numbers: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns accuracy, log loss and calibration error of a density's classifier."""
    at = prefix(density)
    accuracy, loss = (
        with_error(numbers[at + key], numbers[f"{at}{key}_se"], ".4f")
        for key in ("accuracy", "log_loss")
    )
    return accuracy, loss, f"{numbers[f'{at}calibration_error']:.4f}"


def with_error(value: float, error: float | None, form: str = ".2f") -> str:
    """Returns a number and its standard error, which a single row does not have."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")


def warnings(numbers: Mapping[str, float], manifest: Manifest, model: Model) -> Iterator[str]:
    """Yields problems that a reader must not miss, from the metrics of training and evaluation."""
    if numbers["train/best_step"] == 0:
        yield (
            "no validation was better than the start: the checkpoint is the untrained flow. Lower "
            "--train.lr, train for longer, or give the anchor more weight"
        )
    rival = better(numbers)
    error = rival.difference_se
    if error is not None and rival.difference > max(error, LEAST):
        remedies = ["train for longer (--train.steps, --train.max-seconds)"]
        if model.base != "mixture":
            remedies.append("start from the mixture (--model.base mixture)")
        if model.architecture != "coupling" and manifest.width > 1:
            remedies.append("try couplings (--model.architecture coupling)")
        apart = f"{rival.difference:.2f} ± {error:.2f} nats"
        yield f"the flow is worse than a {rival.name}, by {apart}: {', or '.join(remedies)}"
    if manifest.levels is not None and numbers["test/bpd"] > math.log2(manifest.levels):
        yield (
            f"{numbers['test/bpd']:.3g} bits/dim: the flow is worse than a uniform one over "
            f"{manifest.levels} levels. With few training rows raise --preprocess.shrinkage"
        )
