"""The items of the three papers: every method, table and figure, and what shows it here.

Sources: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, items E; Improved Sample Complexity Bounds for Diffusion Model
Training (Gupta, Parulekar, Price, Xun, 2023), arXiv:2311.13745, items G; Rethinking the Role of
Gradient-Based Attribution Methods for Model Interpretability (Srinivas, Fleuret, 2020),
arXiv:2006.09128, items S.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]  # The content of a study's ``summary.json``

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided at this size"

MOST_NUMBERS = 3  # Numbers of an item on the page; ``summary.json`` of the study has all


@dataclass(frozen=True)
class Item:
    """One item of a paper."""

    id: str  #: Its paper's letter and its number
    subject: str  #: A few words
    published: str  #: What the paper shows, with its number if it has one
    study: str  #: The study whose result has it
    figure: str  #: The name of the study's figure
    options: str = ""  #: Options that restrict the study to this item

    def measured(self, summary: Summary) -> "Measured":
        """Returns what the result of the study says of this item.

        Claims without a number are left out of the text, but not of the verdict. If none has a
        number, the text has lines of the study's main table.
        """
        claims = [claim for claim in summary["claims"] if claim["item"] == self.id]
        checks = [check for check in summary["checks"] if check["item"] == self.id]
        verdicts = [claim["verdict"] for claim in claims]
        verdicts += [CHECKED[check["verdict"]] for check in checks]
        texts = [_claim_text(claim) for claim in claims if claim["estimate"]]
        texts += [_check_text(check) for check in checks if check["value"] is not None]
        shown = texts[:MOST_NUMBERS]
        if len(texts) > MOST_NUMBERS:
            count = sum(verdict == HOLDS for verdict in verdicts)
            shown.append(f"{count} of {len(verdicts)} claims hold")
        return Measured("; ".join(shown) or _best(summary), overall(verdicts))

    def entry(self, summary: Summary, command: str, figure: str = "") -> dict[str, str]:
        """Returns the item as in ``summary.json`` of all items.

        Arguments:
            summary: The result of its study.
            command: The command of the study alone.
            figure: The name of the item's figure; empty for none.
        """
        measured = self.measured(summary)
        return {
            "id": self.id,
            "subject": self.subject,
            "published": self.published,
            "measured": measured.text,
            "verdict": measured.verdict,
            "study": self.study,
            "figure": figure,
            "command": " ".join(filter(None, (command, self.options))),
        }


@dataclass(frozen=True)
class Measured:
    """The measurement of an item."""

    text: str  #: The numbers, with their intervals
    verdict: str  #: ``holds``, ``does not hold`` or ``not decided at this size``


CHECKED = {
    "passed": HOLDS,
    "failed": FAILS,
    "not measured": OPEN,
    "not judged at this size": OPEN,
}


def overall(verdicts: Sequence[str]) -> str:
    """Returns the verdict of an item from those of its claims.

    It holds if all hold. It does not if one does not.
    """
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else OPEN


def _claim_text(claim: Mapping[str, Any]) -> str:
    units = f" {claim['units']}" if claim["units"] else ""
    return f"{claim['claim']} {claim['quantity']}: {claim['estimate']}{units}"


def _check_text(check: Mapping[str, Any]) -> str:
    return f"{check['check']} {check['quantity']}: {check['value']:.3g}"


def _best(summary: Summary) -> str:
    """Returns the lines of the main table that have a published number, or the first ones."""
    table = summary["headline"]
    if table is None:
        return ""
    lines = [row for row in table["rows"] if table["headings"][-1] == "paper" and row[-1]]
    lines = lines or table["rows"][:MOST_NUMBERS]
    rows = summary.get("rows", [{}])
    labels = len(rows[0].get("labels", ("",)))
    last = -2 if table["headings"][-1] == "paper" else -1
    heading = table["headings"][last]
    return "; ".join(f"{' '.join(row[:labels])}: {heading} {row[last]}" for row in lines)


ITEMS = (
    Item(
        "E1",
        "energy, normalizer and objectives",
        "formulas",
        "formulas",
        "",
    ),
    Item(
        "E2",
        "matching scores after the preprocessing (MaP)",
        "FC, SSM: NLL 1720.5 without, 1092.8 with",
        "ablation",
        "ablation",
    ),
    Item(
        "E3",
        "averaged weights, clipping, schedule",
        "FC, SSM without MaP: 1757.5 ± 28.0 without averages, 1720.5 ± 0.8 with them",
        "ablation",
        "ablation",
    ),
    Item(
        "E4",
        "sine, swirl and checkerboard by five objectives",
        "pictures: score matching is as good as likelihood",
        "plane",
        "checkerboard",
    ),
    Item(
        "E5",
        "NLL of MNIST by network and objective",
        "FC: ML 1092.4, SML 1092.3, SSM 1092.8, DSM 1099.2, FD-SSM 1104.1; "
        "CNN: 1101.3, 1098.3, 1107.5, 1109.5, 1122.1",
        "table",
        "",
    ),
    Item(
        "E6",
        "NLL of CIFAR-10 by network and objective",
        "FC: ML 11912.9, SML 11915.6, SSM 11917.7, DSM 11940.0, FD-SSM 12347.8; "
        "CNN: 11408.7, 11553.6, 11435.5, 11462.3, 11766.0",
        "colour-table",
        "",
    ),
    Item(
        "E7",
        "NLL against time by objective",
        "curves: score matching is ahead of ML at equal time",
        "curves",
        "curves-FC",
    ),
    Item(
        "E8",
        "time of a step against D",
        "FC on MNIST: ML 8.0, DSM 66.7, FD-SSM 130.2 batches a second",
        "runtime",
        "runtime",
    ),
    Item(
        "E9",
        "Glow by score matching",
        "NLL of MNIST 728 by SSM, 1,637 of an earlier flow by score matching",
        "glow",
        "samples",
    ),
    Item(
        "E10",
        "masked pixels by Langevin's diffusion",
        "pictures of 64 × 64 images in colour",
        "inpainting",
        "inpainting",
    ),
    Item(
        "E11",
        "full, triangular and LU matrices on 512 modes in ten dimensions",
        "a full matrix learns faster",
        "matrices",
        "matrices",
    ),
    Item(
        "E12",
        "pictures of a run on two columns",
        "density, energy and score",
        "plane",
        "sine",
    ),
    Item(
        "E13",
        "data sets",
        "toys in the plane and in ten dimensions, MNIST, CIFAR-10, STL-10, CelebA",
        "formulas",
        "",
    ),
    Item(
        "E14",
        "metrics",
        "NLL, bits/dim; KL and Fisher divergence (the code's KLD is neither)",
        "formulas",
        "",
    ),
    Item(
        "G1",
        "error in mean square and at the (1 − δ)-quantile",
        "a far mode of small mass: the first error is large, the second is not",
        "sample-complexity",
        "indistinguishable",
    ),
    Item(
        "G2",
        "samples for a small error against R/σ",
        "exponent 2 for mean square, 0 for the quantile",
        "sample-complexity",
        "scaling",
    ),
    Item(
        "G3",
        "exponents in d, 1/ε, 1/δ and log of the class",
        "upper bounds: 1 in d, 2 in 1/ε, 1 in 1/δ, 1 in log |H|",
        "sample-complexity",
        "varied",
    ),
    Item(
        "G4",
        "number of weights P and depth D of ReLU networks",
        "an upper bound: P D, up to logarithms",
        "sample-complexity",
        "networks",
    ),
    Item(
        "G5",
        "sampling from scores that are wrong at a δ-fraction of points",
        "total variation is O(δ + ε), up to logarithms",
        "sample-complexity",
        "sampling",
    ),
    Item(
        "G6",
        "an instance on which every empirical minimizer fails",
        "the error in mean square is large, with constant probability",
        "sample-complexity",
        "minimizer",
    ),
    Item(
        "G7",
        "flows as learners of scores",
        "not in the paper",
        "sample-complexity",
        "flows",
    ),
    Item(
        "G8",
        "a diffusion model of images",
        "not in the paper",
        "sample-complexity",
        "images",
    ),
    Item(
        "S1",
        "logits as densities, whose gradients a shift changes at will",
        "predictions stay, gradients show any pattern",
        "gradient-alignment",
        "fooled",
    ),
    Item(
        "S2",
        "gradients of the loss, which a ripple changes",
        "not in the paper: a shift leaves them as they are",
        "gradient-alignment",
        "rippled",
    ),
    Item(
        "S3",
        "score matching, its opposite, a penalty on gradients; the stability penalty",
        "score matching aligns gradients with the data, its opposite does not",
        "gradient-alignment",
        "gauge",
    ),
    Item(
        "S4",
        "settings: network, width, epochs, λ, μ, σ, K, estimator, clipping",
        "CIFAR-100, ResNet-18",
        "gradient-alignment",
        "trade-off",
    ),
    Item(
        "S5",
        "density ratio, activity maximization, GAN-test, pixel perturbation",
        "score matching is best at each",
        "gradient-alignment",
        "samples",
    ),
    Item(
        "S6",
        "colour images and a residual network",
        "CIFAR-100, ResNet-18",
        "gradient-alignment-colour",
        "gradients",
    ),
    Item(
        "S7",
        "structure of gradients and generalization",
        "unrelated",
        "gradient-alignment",
        "trade-off",
    ),
    Item(
        "S8",
        "search of λ, μ, σ and the noise",
        "settings, without a search",
        "gradient-alignment",
        "search",
    ),
)


def items(studies: Sequence[str]) -> list[Item]:
    """Returns the items whose study is among those that run."""
    return [item for item in ITEMS if item.study in studies]
