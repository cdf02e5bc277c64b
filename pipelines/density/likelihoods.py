"""The likelihood of a flow and of the baselines: metrics, lines of a table, warnings."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config import ModelConfig
from pipelines.data.manifest import Manifest
from pipelines.data.splits import SELECTION

HEADINGS = ("", "test NLL", "bits/dim", "flow − this", "validation NLL")
"""Headings of ``cells``."""

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
    difference: float | None = None
    difference_se: float | None = None

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
    return [_line(density, numbers) for density in ("flow", *BASELINES)]


def better(numbers: Mapping[str, Any]) -> Line:
    """Returns the baseline with the lower test NLL."""
    return min(lines(numbers)[1:], key=lambda line: line.nll)


def cells(line: Line) -> tuple[str, ...]:
    """Returns a line of the table with ``HEADINGS``."""
    difference = ""
    if line.difference is not None:
        difference = _with_error(line.difference, line.difference_se, "+.2f")
    nll = _with_error(line.nll, line.nll_se)
    return line.name, nll, f"{line.bpd:.3f}", difference, f"{line.val_nll:.2f}"


def classified(density: str, numbers: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns accuracy, log loss and calibration error of a density's classifier."""
    at = prefix(density)
    accuracy, loss = (
        _with_error(numbers[at + key], numbers[f"{at}{key}_se"], ".4f")
        for key in ("accuracy", "log_loss")
    )
    return accuracy, loss, f"{numbers[f'{at}calibration_error']:.4f}"


def _with_error(value: float, error: float | None, form: str = ".2f") -> str:
    """Returns a number and its standard error, which a single row does not have."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")


def _line(density: str, numbers: Mapping[str, Any]) -> Line:
    at = prefix(density)
    found = {key: numbers[f"{at}{key}"] for key in ("nll", "nll_se", "bpd")}
    found["val_nll"] = numbers[f"{prefix(density, 'validation')}nll"]
    if gain := BASELINES.get(density):
        found["difference"] = -numbers[f"test/{gain}"]
        found["difference_se"] = numbers[f"test/{gain}_se"]
    return Line(density, _name(density, numbers), **found)


def _name(density: str, numbers: Mapping[str, Any]) -> str:
    given = " given the context" if numbers["baseline/contexts"] else ""
    if density == "flow":
        return "flow"
    if density == "gaussian":
        return f"full-covariance Gaussian{given}"
    count = int(numbers["baseline/mixture_components"])
    kind = "" if numbers["baseline/mixture_full"] else "diagonal "
    return f"mixture of {count} {kind}Gaussian{'' if count == 1 else 's'}{given}"


def warnings(
    numbers: Mapping[str, float], manifest: Manifest, model: ModelConfig
) -> Iterator[str]:
    """Yields problems that a reader must not miss, from the metrics of training and evaluation."""
    if numbers["train/best_step"] == 0:
        yield (
            "no validation was better than the start: the checkpoint is the untrained flow. Lower "
            "--train.lr, train for longer, or give the anchor more weight"
        )
    rival = better(numbers)
    error = rival.difference_se
    if error is not None and rival.difference > max(error, LEAST):
        remedies = ", or ".join(_remedies(model, manifest.width))
        yield (
            f"the flow is worse than a {rival.name}, by {rival.difference:.2f} ± "
            f"{error:.2f} nats: {remedies}"
        )
    if manifest.levels is not None and numbers["test/bpd"] > math.log2(manifest.levels):
        yield (
            f"{numbers['test/bpd']:.3g} bits/dim: the flow is worse than a uniform one over "
            f"{manifest.levels} levels. With few training rows raise --preprocess.shrinkage"
        )


def _remedies(model: ModelConfig, width: int) -> Iterator[str]:
    """Yields options that may help; couplings need two features."""
    yield "train for longer (--train.steps, --train.max-seconds)"
    if model.base != "mixture":
        yield "start from the mixture (--model.base mixture)"
    if model.architecture != "coupling" and width > 1:
        yield "try couplings (--model.architecture coupling)"
