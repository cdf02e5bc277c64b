"""The rows of the paper that the study measures, each with its numbers and its verdict.

A row is decided by claims and checks of the study, whose bounds are fixed there. It holds if all
of them do. It does not hold if one does not. Else it is not decided at this scale.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, and its first version, Gradient Alignment in Deep
Neural Networks (2020).
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.gradient_alignment.models import COLOUR
from pipelines.reporting.claims import Check, Claim, Conclusion

COMMAND = "ebflow run gradient-alignment"

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided at this scale"


@dataclass(frozen=True)
class Row:
    """A row of the paper, before it is decided.

    ``decided_by`` are the first words of the claims and checks that decide it.
    """

    row: str  #: Its number
    item: str  #: One sentence
    decided_by: tuple[str, ...]
    figures: tuple[str, ...]  #: Names of figures that show it
    options: str  #: Options of the command that measures this row alone

    def entry(self, conclusion: Conclusion) -> dict[str, Any]:
        """Returns the row as in ``summary.json``."""
        parts = [one for start in self.decided_by for one in _beginning(conclusion, start)]
        complete = len(parts) == len(self.decided_by)
        fields = asdict(self)
        del fields["decided_by"], fields["options"]
        return fields | {
            "command": f"{COMMAND} {self.options}",
            "numbers": [_number(one) for one in parts],
            "verdict": _verdict(parts) if complete else OPEN,
        }


ROWS = (
    Row("S1", "Logits are log-densities up to a function of the image: two classifiers with equal "
        "predictions, one of which has the gradients that one likes.",
        ("A pattern on every logit changes", "And logit-gradients show the pattern"),
        ("fooled",), "--models fool-shift fool-weights"),
    Row("S2", "A low wave on the logits changes the gradients of the loss; no shift of all logits "
        "does.",
        ("A pattern on every logit leaves", "Waves of a height", "But they change"),
        ("rippled",), "--models fool-shift fool-ripple"),
    Row("S3", "Score matching, its opposite and a penalty on gradients change what gradients "
        "show.",
        ("The stability penalty shrinks", "In what no gauge reaches",
         "Anti-score-matching in the paper's", "One-sided score matching with"),
        ("gradients", "trade-off"),
        "--models score score-free score-control gnorm paper-anti code-score code-control"),
    Row("S4", "Network, width, epochs, λ, μ, σ, K, estimator and clipping are options.",
        ("Every setting of the paper is an option",),
        ("trade-off",), "--models baseline --custom.name score --custom.weight 0.03"),
    Row("S5", "Density ratio, pictures by gradient ascent and pixel perturbation prefer score "
        "matching.",
        ("Pictures of activity maximization", "Gradients of score matching are better",
         "A plain classifier takes noisy"),
        ("density-ratio", "samples", "perturbation"), "--models score gnorm anti"),
    Row("S7", "The structure of input-gradients is unrelated to generalization.",
        ("Two classifiers with the same predictions differ", "Among them test accuracy does not",
         "Nor does it follow A3"),
        ("trade-off",), "--scale cpu"),
    Row("S8", "A search of λ, μ, σ and the noise.",
        ("A search of λ, μ, σ and noise finds", "It costs no accuracy that matters"),
        ("search",),
        "--models score paper-score --sweep.weights 0.03 0.3 --sweep.stabilities 1e-4 1e-2 "
        "--sweep.steps 0.01 0.1 --sweep.noises 0.05 0.2"),
)  # fmt: skip


# The row of colour images, which a study with their models measures instead.
COLOUR_ROWS = (
    Row("S6", "Colour images and a residual network: score matching changes what gradients show.",
        ("On colour images score matching aligns", "There it aligns them more than",
         "There score matching costs no", "There another network recognizes",
         "There its gradients are better"),
        ("gradients", "samples"),
        "--data.source digits-on-photographs --reference.kind none --classifier.network resnet9 "
        "--models colour-score colour-control"),
)  # fmt: skip


def rows(models: Collection[str]) -> tuple[Row, ...]:
    """Returns the rows that a study of some models measures."""
    return COLOUR_ROWS if set(COLOUR) & set(models) else ROWS


def with_items(conclusion: Conclusion, rows: Sequence[Row]) -> Conclusion:
    """Returns a conclusion whose claims and checks name the row that they decide."""
    items = {id(one): row.row for row in rows for start in row.decided_by
             for one in _beginning(conclusion, start)}  # fmt: skip
    return replace(
        conclusion,
        claims=tuple(replace(one, item=items.get(id(one), "")) for one in conclusion.claims),
        checks=tuple(replace(one, item=items.get(id(one), "")) for one in conclusion.checks),
    )


def entries(conclusion: Conclusion, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns rows as in ``summary.json``."""
    return [row.entry(conclusion) for row in rows]


def _beginning(conclusion: Conclusion, start: str) -> list[Claim | Check]:
    claims = [one for one in conclusion.claims if one.claim.startswith(start)]
    return claims or [one for one in conclusion.checks if one.check.startswith(start)]


def _number(one: Claim | Check) -> dict[str, Any]:
    """Returns the number of a claim or a check; a check has no interval."""
    sentence = one.claim if isinstance(one, Claim) else one.check
    low, high = (one.low, one.high) if isinstance(one, Claim) else (None, None)
    return {
        "sentence": sentence,
        "quantity": one.quantity,
        "value": one.value,
        "low": low,
        "high": high,
        "expected": one.expected,
        "verdict": _part(one),
    }


def _part(one: Claim | Check) -> str:
    """Returns the verdict of a claim or a check in the words of rows."""
    if isinstance(one, Claim):
        return one.verdict if one.verdict in (HOLDS, FAILS) else OPEN
    if one.passed is None:
        return OPEN
    return HOLDS if one.passed else FAILS


def _verdict(parts: Sequence[Claim | Check]) -> str:
    verdicts = {_part(one) for one in parts}
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts == {HOLDS} else OPEN
