"""The likelihood of a flow beside those of the baselines: its metrics, and lines of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.data.splits import SELECTION

HEADING = ("", "NLL (nats)", "bits/dim", "flow − this")
"""Of ``cells``; differences are paired."""

BASELINES = {"gaussian": "gain", "mixture": "gain_over_mixture"}
"""Names of the baselines in metrics, and of the flow's gain over each."""

SPLITS = {
    "test": ("test/", ""),
    "validation": ("best/val_", "val_"),
    SELECTION: ("select/", "select_"),
}
"""The splits that there may be, how metrics of the flow on them begin, and what of a baseline's
follows its name."""


def prefix(density: str, split: str = "test") -> str:
    """Returns how metrics of the ``flow``, or of a baseline, on a split begin."""
    own, beside = SPLITS[split]
    return own if density == "flow" else f"baseline/{density}_{beside}"


@dataclass(frozen=True)
class Line:
    """A density on the test split.

    Attributes:
        name: What it is.
        prefix: How its metrics begin.
        nll: Its negative log-likelihood in nats.
        nll_se: The standard error; None of a single row.
        bpd: Bits a dimension.
        val_nll: The negative log-likelihood of the validation split.
        difference: By how much the flow's is greater, the mean of paired differences; None of the
            flow itself.
        difference_se: Its standard error; None of a single row.
    """

    name: str
    prefix: str
    nll: float
    nll_se: float | None
    bpd: float
    val_nll: float
    difference: float | None = None
    difference_se: float | None = None

    @property
    def likelihood(self) -> str:
        """The negative log-likelihood with its standard error."""
        return _apart(self.nll, self.nll_se)

    @property
    def paired(self) -> str:
        """The difference with its standard error; empty of the flow itself."""
        if self.difference is None:
            return ""
        return _apart(self.difference, self.difference_se, "+.2f")


def lines(numbers: Mapping[str, Any]) -> list[Line]:
    """Returns the flow's line and those of the baselines, from the metrics of an evaluation."""
    return [_line(density, numbers) for density in ("flow", *BASELINES)]


def better(numbers: Mapping[str, Any]) -> Line:
    """Returns the baseline of the lower test NLL."""
    return min(lines(numbers)[1:], key=lambda line: line.nll)


def cells(numbers: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns what the table says, below ``HEADING``."""
    return [
        (line.name, line.likelihood, f"{line.bpd:.3f}", line.paired) for line in lines(numbers)
    ]


def classified(line: Line, numbers: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns accuracy and log loss of a density's classifier, and its calibration error."""
    accuracy, loss = (
        _apart(numbers[line.prefix + key], numbers[f"{line.prefix}{key}_se"], ".4f")
        for key in ("accuracy", "log_loss")
    )
    return accuracy, loss, f"{numbers[f'{line.prefix}calibration_error']:.4f}"


def _apart(value: float, error: float | None, form: str = ".2f") -> str:
    """Returns a number with its standard error, of which a single row has none."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")


def _line(density: str, numbers: Mapping[str, Any]) -> Line:
    at = prefix(density)
    found = {key: numbers[f"{at}{key}"] for key in ("nll", "nll_se", "bpd")}
    found["val_nll"] = numbers[f"{prefix(density, 'validation')}nll"]
    if gain := BASELINES.get(density):
        found["difference"] = -numbers[f"test/{gain}"]
        found["difference_se"] = numbers[f"test/{gain}_se"]
    return Line(_name(density, numbers), at, **found)


def _name(density: str, numbers: Mapping[str, Any]) -> str:
    given = " given the context" if numbers["baseline/contexts"] else ""
    if density == "flow":
        return "flow"
    if density == "gaussian":
        return f"full-covariance Gaussian{given}"
    count = int(numbers["baseline/mixture_components"])
    kind = "" if numbers["baseline/mixture_full"] else "diagonal "
    return f"mixture of {count} {kind}Gaussian{'' if count == 1 else 's'}{given}"
