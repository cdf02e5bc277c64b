"""The likelihood of a flow beside those of the baselines, as lines of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADING = ("", "NLL (nats)", "bits/dim", "flow − this")
"""Of ``cells``; differences are paired."""

BASELINES = {"gaussian": "gain", "mixture": "gain_over_mixture"}
"""Names of the baselines in metrics, and of the flow's gain over each."""


@dataclass(frozen=True)
class Line:
    """A density on the test split.

    Attributes:
        name: What it is.
        nll: Its negative log-likelihood in nats.
        nll_se: The standard error.
        bpd: Bits a dimension.
        val_nll: The negative log-likelihood of the validation split.
        difference: By how much the flow's is greater, the mean of paired differences; None of the
            flow itself.
        difference_se: Its standard error.
    """

    name: str
    nll: float
    nll_se: float
    bpd: float
    val_nll: float
    difference: float | None = None
    difference_se: float | None = None

    @property
    def paired(self) -> str:
        """The difference with its standard error; empty of the flow itself."""
        if self.difference is None:
            return ""
        return f"{self.difference:+.2f} ± {self.difference_se:.2f}"


def lines(numbers: Mapping[str, Any]) -> list[Line]:
    """Returns the flow's line and those of the baselines, from the metrics of an evaluation."""
    found = [_line("flow", numbers, "test/", "best/val_")]
    for what, gain in BASELINES.items():
        paired = {"difference": -numbers[f"test/{gain}"],
                  "difference_se": numbers[f"test/{gain}_se"]}  # fmt: skip
        at = f"baseline/{what}_"
        found.append(_line(_name(what, numbers), numbers, at, f"{at}val_", **paired))
    return found


def better(numbers: Mapping[str, Any]) -> Line:
    """Returns the baseline of the lower test NLL."""
    return min(lines(numbers)[1:], key=lambda line: line.nll)


def cells(numbers: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns what the table says, below ``HEADING``."""
    return [
        (line.name, f"{line.nll:.2f} ± {line.nll_se:.2f}", f"{line.bpd:.3f}", line.paired)
        for line in lines(numbers)
    ]


def classes(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Returns the line of a terminal on the flow's classifier, if it makes one."""
    if "test/accuracy" not in numbers:
        return {}
    found = {key: numbers[f"test/{key}"] for key in ("accuracy", "log_loss", "calibration_error")}
    errors = {key: numbers[f"test/{key}_se"] for key in ("accuracy", "log_loss")}
    return {
        "classifier": f"accuracy {found['accuracy']:.4f} ± {errors['accuracy']:.4f}, log loss "
        f"{found['log_loss']:.4f} ± {errors['log_loss']:.4f} nats, calibration error "
        f"{found['calibration_error']:.4f}, by Bayes' rule"
    }


def _line(
    name: str, numbers: Mapping[str, Any], test: str, validation: str, **more: float
) -> Line:
    found = {key: numbers[f"{test}{key}"] for key in ("nll", "nll_se", "bpd")}
    return Line(name, **found, val_nll=numbers[f"{validation}nll"], **more)


def _name(what: str, numbers: Mapping[str, Any]) -> str:
    given = " given the context" if numbers["baseline/contexts"] else ""
    if what == "gaussian":
        return f"full-covariance Gaussian{given}"
    count = int(numbers["baseline/mixture_components"])
    kind = "" if numbers["baseline/mixture_full"] else "diagonal "
    return f"mixture of {count} {kind}Gaussian{'' if count == 1 else 's'}{given}"
