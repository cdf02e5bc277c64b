r"""The time of a training step against D: dense networks and CNNs, every objective.

Over large sizes a step takes about :math:`t = c D^b`. b is near 2 if matrix products of a batch
dominate, and near 3 if factorizations do. A line is fitted to :math:`\log t = \log c + b \log D`.
A dense network sees colours as further pixels, so that all images give it one line.

The claims are the paper's: score matching needs no log-determinant, so that its steps grow slower
with D than those of exact likelihood, and are faster at the sizes of its tables. ``SLOWER`` is
half of the power of D that the log-determinant adds: D³ beside D² of dense layers, and D² beside D
of convolutions, which are eliminated by strips. The paper does not name the GPU of its speeds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ebflow.errors import BadInput
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, StepsConfig
from pipelines.paper.table import OBJECTIVES
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student
from pipelines.reporting.style import Captioned, panels

CHANNELS = {"grey": 1, "colour": 3}

Kind = tuple[str, str]  # A network, and the kind of its images

# Sides of the images by scale. The largest one in ``SHOWN`` is in the table.
SIDES: dict[str, dict[Kind, tuple[int, ...]]] = {
    "smoke": {
        ("FC", "grey"): (16, 20, 24), ("FC", "colour"): (16,),
        ("CNN", "grey"): (12, 16, 20), ("CNN", "colour"): (8, 12, 16),
    },
    "cpu": {
        ("FC", "grey"): (16, 28, 40), ("FC", "colour"): (16, 32),
        ("CNN", "grey"): (16, 28, 40), ("CNN", "colour"): (16, 24, 32),
    },
    "full": {
        ("FC", "grey"): (16, 28, 40, 56), ("FC", "colour"): (16, 32, 40),
        ("CNN", "grey"): (16, 28, 40), ("CNN", "colour"): (16, 32, 40),
    },
}  # fmt: skip

SHOWN = {"grey": 28, "colour": 32}  # Sides of MNIST and of CIFAR-10

# Least seconds of an objective, by scale.
SECONDS = {"smoke": 0.05, "cpu": 1.0, "full": 3.0}
SQUARE = {"smoke": 512, "cpu": 2_048, "full": 2_048}

# Further objectives: likelihood without a log-determinant in every step.
OTHERS = {"FC": ("lazy_ml", "relative_ml"), "CNN": ("lazy_ml",)}

# Published batches of 100 a second, by the order of ``OBJECTIVES``.
PUBLISHED: dict[Kind, tuple[float, ...]] = {
    ("FC", "grey"): (8.00, 12.27, 33.11, 66.67, 130.21),
    ("CNN", "grey"): (0.21, 0.29, 7.09, 18.32, 38.76),
    ("FC", "colour"): (5.05, 7.35, 29.85, 57.14, 62.50),
    ("CNN", "colour"): (0.02, 0.03, 7.35, 18.41, 39.84),
}

MATCHING = ("ssm_vr", "dsm", "fd_ssm")
SLOWER = 0.5  # The least difference of exponents


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields each network and size; a seed is a repetition."""
    for (network, images), sides in SIDES[config.scale].items():
        names = _objectives(config, network)
        for side in sides:
            channels = CHANNELS[images]
            labels = {"network": network, "images": f"{channels}×{side}×{side}"}
            steps = StepsConfig(
                network=network, channels=channels, side=side, objectives=names,
                seconds=SECONDS[config.scale], square=SQUARE[config.scale],
                repetition=seed, threads=config.threads,
            )  # fmt: skip
            yield Cell(labels, steps, seed, stage="steps")


def _objectives(config: PaperConfig, network: str) -> tuple[str, ...]:
    """Returns the objectives that are timed: ``ml``, the reference, and those asked for."""
    known = (*OBJECTIVES.values(), *OTHERS[network])
    every = (*OBJECTIVES.values(), *OTHERS["FC"])
    for name in config.objectives:
        if name not in every:
            raise BadInput(option="--objectives", found=name, expected=" or ".join(every))
    chosen = {"ml", *(config.objectives or known)}
    return tuple(name for name in known if name in chosen)


class Group(NamedTuple):
    """The sizes to which one line is fitted."""

    network: str  #: The network
    images: str  #: Its images: ``grey``, ``colour``, or empty if the line has both

    @classmethod
    def of(cls, config: StepsConfig) -> "Group":
        """Returns the group of a cell."""
        return cls(config.network, "" if config.network == "FC" else _images(config))

    def __str__(self) -> str:
        return f"{self.network}, {self.images} images" if self.images else self.network


def _images(config: StepsConfig) -> str:
    return "grey" if config.channels == 1 else "colour"


# Milliseconds by group and seed, objective, and D.
Lines = dict[tuple[Group, int], dict[str, dict[int, float]]]


def lines(finished: Sequence[Finished]) -> Lines:
    """Returns milliseconds by group and seed, objective, and D."""
    found: Lines = {}
    for one in finished:
        steps = one.cell.config
        objectives = found.setdefault((Group.of(steps), one.cell.seed), {})
        for name in steps.objectives:
            times = objectives.setdefault(name, {})
            times[steps.size] = one.row[f"time/step_ms/{name}"]
    return found


def exponent(
    times: Mapping[int, float], reference: Mapping[int, float] | None = None
) -> Confidence:
    """Returns b of t = c Dᵇ; with a reference, of the ratio of its time to t.

    Its interval is of the regression: points are off the line by noise and by curvature. Two sizes
    have no interval.
    """
    sizes = sorted(times)
    values = np.log([times[size] for size in sizes])
    if reference is not None:
        values = np.log([reference[size] for size in sizes]) - values
    if len(sizes) < 2:
        return Confidence(math.nan, math.nan, 0)
    fit = stats.linregress(np.log(sizes), values)
    return Confidence(float(fit.slope), float(fit.stderr) or math.nan, len(sizes) - 2)


def over_seeds(found: Sequence[Confidence]) -> Confidence:
    """Returns the mean with Student's interval; the estimate itself of a single seed."""
    return found[0] if len(found) == 1 else student([one.value for one in found])


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns a row per seed, network, kind of images and objective, at the size of the table."""
    found = []
    times = lines(finished)
    for one in _shown(finished):
        steps = one.cell.config
        group = times[Group.of(steps), one.cell.seed]
        for name in steps.objectives:
            found.append(_row(one, name, group[name], group["ml"]))
    return found


def _shown(finished: Sequence[Finished]) -> Iterator[Finished]:
    """Yields the cells in the table: the size of its data set, or else the largest one."""
    kinds: dict[tuple[str, str, int], list[Finished]] = {}
    for one in finished:
        kind = (one.cell.config.network, _images(one.cell.config), one.cell.seed)
        kinds.setdefault(kind, []).append(one)
    for (_, images, _), group in kinds.items():
        of_data = [one for one in group if one.cell.config.side == SHOWN[images]]
        yield (of_data or group)[-1]


def _row(
    one: Finished, name: str, times: Mapping[int, float], reference: Mapping[int, float]
) -> Row:
    steps = one.cell.config
    ms = times[steps.size]
    value, low, high = exponent(times).interval()
    return {
        **one.cell.provenance(),
        "labels": {**one.cell.labels, "objective": name},
        "published": _published(steps, name),
        "time/step_ms": ms,
        "time/batches_per_s": 1e3 / ms,
        "study/faster": reference[steps.size] / ms,
        "study/exponent": value,
        "study/exponent_low": _finite(low),
        "study/exponent_high": _finite(high),
        "study/sizes": [list(pair) for pair in sorted(times.items())],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _published(steps: StepsConfig, name: str) -> float | None:
    """Returns the published batches a second of the size and objective; None without."""
    images = _images(steps)
    if steps.side != SHOWN[images]:
        return None
    numbers = zip(OBJECTIVES.values(), PUBLISHED[steps.network, images], strict=True)
    return dict(numbers).get(name)


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns claims on exponents and on the sizes of the table."""
    claims = decide([*_exponents(finished), *_speeds(finished)])
    holding = sum(claim.verdict == "holds" for claim in claims)
    findings = (f"{holding} of {len(claims)} claims on faster steps by score matching hold.",)
    change = "A GPU, where products are cheaper beside factorizations; other sizes of a batch."
    return Conclusion(findings=findings, claims=tuple(claims), would_change=(change,))


def _exponents(finished: Sequence[Finished]) -> Iterator[Measured]:
    """Yields the difference of exponents for each group and form of score matching."""
    times = lines(finished)
    for group in dict.fromkeys(group for group, _ in times):
        for name in MATCHING:
            fits = [
                exponent(line[name], line["ml"])
                for (own, _), line in times.items()
                if own == group and name in line
            ]
            question = Question(
                claim=f"On {group}, the time of {name} grows slower with D than that of ml.",
                quantity="exponent of ml less its own",
                expected=above(SLOWER),
                figure="runtime",
                item="E8",
                note="Slope of log(time of ml / time) over log D. The interval is the "
                "regression's for one seed, and over seeds for several.",
            )
            yield question, over_seeds(fits) if fits else None


def _speeds(finished: Sequence[Finished]) -> Iterator[Measured]:
    """Yields the logarithm of the ratio of step times, of ml over dsm, at each size shown."""
    ratios: dict[tuple[str, ...], list[float]] = {}
    for one in _shown(finished):
        if "dsm" in one.cell.config.objectives:
            ml, dsm = (one.row[f"time/step_ms/{name}"] for name in ("ml", "dsm"))
            ratios.setdefault(tuple(one.cell.labels.values()), []).append(math.log(ml / dsm))
    for (network, images), values in ratios.items():
        question = Question(
            claim=f"On {network} with {images} values, a step of dsm is faster than one of ml.",
            quantity="log of the ratio of times, ml over dsm",
            expected=above(0.0),
            figure="runtime",
            item="E8",
            note="Over seeds, which are repetitions. A single seed has no interval.",
        )
        yield question, student(values)


STYLES = ("o-", "s--", "^-.", "v:", "d-", "P--", "X-.")


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns step times against D, a panel for each group, of the first seed."""
    times = {group: line for (group, seed), line in lines(finished).items()
             if seed == finished[0].cell.seed}  # fmt: skip
    figure, axes = panels(len(times), 3.6 * len(times), 3.6, squeeze=False)
    for axis, (group, line) in zip(axes[0], times.items(), strict=True):
        for style, (name, found) in zip(STYLES, line.items(), strict=False):
            sizes = sorted(found)
            slope = exponent(found).value
            values = [found[size] for size in sizes]
            axis.loglog(sizes, values, style, ms=4, label=f"{name}, $D^{{{slope:.1f}}}$")
        axis.set(title=str(group), xlabel="D")
        axis.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
        axis.minorticks_off()
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("milliseconds a step")
    caption = (
        "The least time of a step (loss, backward, Adam; batches of 100) against the dimension, "
        "with fitted exponents. Both axes are logarithmic."
    )
    return {"runtime": (figure, caption)}


RUNTIME = Experiment(
    about="time of a training step against D, by network and objective",
    legend="batches of 100 rows, float32, fused Adam; the least time of an objective, all in "
    "turns; faster: how many times as fast as ml; D^: fitted exponent; the paper's GPU is not "
    "named; run nothing else on the machine",
    uses=frozenset(("objectives", "seed", "seeds", "threads")),
    cells=cells,
    rows=rows,
    columns=(
        Column("study/exponent", "D^", 2),
        Column("time/step_ms", "ms", 2, interval=False),
        Column("study/faster", "faster", 1, interval=False),
        Column("time/batches_per_s", "batches/s", 2),
    ),
    figures=figures,
    conclude=conclude,
)
