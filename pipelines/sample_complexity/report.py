"""What the study of sample complexity leaves: its page, its results, and what is printed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from ebflow.inference import Confidence
from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.reporting import claims, runs
from pipelines.reporting.claims import Conclusion, Figure, Table
from pipelines.sample_complexity import law_tables
from pipelines.sample_complexity.cells import PAIR_OBJECTIVES, SEPARATIONS
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import KAPPAS, Answer, where

if TYPE_CHECKING:
    from pipelines.tracking import StageRun

SHOWN = (128, 512, 2048)
"""The m at which divergences are printed."""

TITLE = "How many samples a score needs"
INTRO = (
    "A law with a far mode of weight η at a distance R, smoothed by noise σ. Its score is learnt "
    "from m samples, and the error of what was learnt is measured in mean square (σ L2) and at "
    "the (1 − δ)-quantile (σ Dᵟ). m* is the m from which on a quantile over training sets (0.75; "
    "networks: the median) of the error stays at or below ε. The far mode has the weight at which "
    "missing it costs 2 ε in mean square, so that η falls as (σ/R)². "
    "Training sets come as they are drawn. Beside it stand laws that look like data, mixtures "
    "fitted to images whose scores are exact at every noise, with an implanted rare mode and "
    "without, and denoisers that learn all noises at once. Asked for are shapes, not constants."
)


def page(
    config: ComplexityConfig,
    conclusion: Conclusion,
    answers: Sequence[Answer],
    rows: pa.Table,
    cost: Mapping[str, float],
    figures: Mapping[str, Figure],
) -> str:
    """Returns the page of the study.

    Arguments:
        config: The configuration.
        conclusion: What was found.
        answers: Crossing points and exponents.
        rows: All rows.
        cost: What the cells cost.
        figures: The figures by name.
    """
    tables = [
        law_tables.denoisers(config, rows),
        law_tables.correlations(config, rows),
        _exponents(answers),
        _samplers(rows),
        _pairs(answers, rows),
        _cost(cost),
    ]
    return claims.page(TITLE, INTRO, conclusion, figures, tables, config)


def _exponents(answers: Sequence[Answer]) -> Table:
    headings = ("learner", "quantity", "against", "exponent", "m* at each point")
    lines = []
    for one in answers:
        question = one.question
        points = ", ".join(
            f"{at:.3g}: {m.value:.0f}" for at, m in zip(one.values, one.crossings, strict=True)
        )
        lines.append(
            (question.named, question.quantity, question.against, _interval(one.slope), points)
        )
    note = "inf: the error does not cross ε on the grid of m; such points are left out of the fit."
    return Table("Exponents", headings, lines, note)


def _interval(found: Confidence | None) -> str:
    if not found:
        return ""
    value, low, high = found.interval()
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _samplers(rows: pa.Table) -> Table:
    """Returns means over seeds of the distances of samples."""
    names = ("sigma_l2", "levels_l2", "levels_q", "levels_d", "tv", "w2", "far_mass_error")
    samplers = where(rows, panel="samplers")
    keys = ("learner", "m", "step")
    grouped = samplers.group_by(keys).aggregate([(name, "mean") for name in names])
    lines = [
        (
            row["learner"],
            *("" if row[name] is None else f"{row[name]}" for name in keys[1:]),
            *("" if row[f"{n}_mean"] is None else f"{row[f'{n}_mean']:.3g}" for n in names),
        )
        for row in grouped.sort_by([(key, "ascending") for key in keys]).to_pylist()
    ]
    headings = ("scores", "m", "steps", "σ L2", "over levels", "σ Dᵟ over levels",
                "largest σ Dᵟ, δ/N", "TV", "W2", "error of the far mass")  # fmt: skip
    eta = samplers["eta"][0].as_py()
    note = f"Means over seeds, on the line, by the reverse SDE; the far mass is {eta:.3g}."
    return Table("Samplers", headings, lines, note)


def _pairs(answers: Sequence[Answer], rows: pa.Table) -> Table:
    """Returns what two Gaussians on the line are off, by objective."""
    pairs = where(rows, panel="pairs")
    lines = [_pair(answers, pairs, a, name) for a in SEPARATIONS for name in PAIR_OBJECTIVES]
    headings = ("modes, objective", *(f"m KL, m = {m}" for m in SHOWN), "KL, m = ∞",
                "KL of the learnt law", *(f"m*(KL ≤ {kappa:g})" for kappa in KAPPAS),
                f"KL over ML's, m = {SHOWN[-1]}")  # fmt: skip
    note = ("Means over training sets, in nats; m = ∞: no sample is seen twice. Denoising learns "
            "the smoothed law; inf: the divergence does not stay below κ.")  # fmt: skip
    return Table("Two Gaussians on the line", headings, lines, note)


def _pair(answers: Sequence[Answer], rows: pa.Table, a: float, learner: str) -> tuple[str, ...]:
    some, best = (where(rows, a=a, learner=name) for name in (learner, "ml"))
    means = [_mean(where(some, m=m), "kl") for m in SHOWN]
    endless = _mean(some.filter(pc.is_null(some["m"])), "kl")
    question = ("m*_KL", learner, (("a", a),))
    one = next(
        x for x in answers
        if (x.question.quantity, x.question.learner, x.question.fixed) == question
    )  # fmt: skip
    return (
        f"±{a:g}, {learner}",
        *(f"{m * kl:.3g}" for m, kl in zip(SHOWN, means, strict=True)),
        f"{endless:.2g}",
        f"{_mean(some, 'kl_floor'):.2g}",
        *(f"{m.value:.0f}" for m in one.crossings),
        f"{means[-1] / _mean(where(best, m=SHOWN[-1]), 'kl'):.3g}",
    )


def _mean(rows: pa.Table, column: str) -> float:
    return pc.mean(rows[column]).as_py()


def _cost(cost: Mapping[str, float]) -> Table:
    lines = [
        ("cells", f"{cost['study/cells']:.0f}"),
        ("processor time, s", f"{cost['study/cpu_s']:.0f}"),
        ("processor time a cell, s", f"{cost['study/cpu_s_a_cell']:.2f}"),
        ("time in which cells ran, s", f"{cost['study/wall_s']:.0f}"),
        ("share of all cores kept busy", f"{cost['study/cpu_busy']:.0%}"),
    ]
    return Table("Cost", ("", "value"), lines)


def describe(config: ComplexityConfig) -> Description:
    """Returns the scale and the seed."""
    return Description(
        parts=(f"scale {config.scale}",),
        about=f"**{TITLE}.** {INTRO}",
        tags={"ebflow.scale": config.scale, "ebflow.seed": str(config.seed)},
    )


def publish(config: ComplexityConfig, value: Sequence[Artefact], folder: Path) -> dict[str, Any]:
    """Copies page, figures and results into a folder; returns exponents, claims and cost."""
    fitted, concluded = (artefact.path for artefact in value)
    runs.publish(concluded, folder)
    shutil.copy(fitted / "results.parquet", folder)
    numbers = json.loads((concluded / "numbers.json").read_text())
    return {**numbers, "seeds": {"study": config.seed}}


def log(
    config: ComplexityConfig, value: Sequence[Artefact], folder: Path, run: "StageRun"
) -> None:
    """Logs the parameters, the cost, the page, the figures and the results."""
    run.log_params(config.model_dump())
    run.log_metrics(json.loads((value[1].path / "numbers.json").read_text())["cost"])
    run.log_artifacts(folder / "results.parquet")
    runs.log(folder, run)


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the claims, what the study cost, and where everything is."""
    console.print(TITLE)
    claims.show(console, Conclusion.read(summary))
    cost = summary["cost"]
    text = (
        f"{cost['study/cells']:.0f} cells, {cost['study/cpu_s_a_cell']:.2f} s of a core each; "
        f"{cost['study/cpu_busy']:.0%} of the cores busy"
    )
    runs.show(console, summary, {"cost": text}, results=summary["results"])
