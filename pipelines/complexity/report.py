"""What the study of sample complexity leaves: its page, its results, and what is printed."""

__all__ = ["describe", "log", "page", "publish", "show"]

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from ebflow.estimate import Interval
from pipelines import claims
from pipelines.claims import Claim, Figure, Table
from pipelines.complexity.config import ComplexityConfig
from pipelines.complexity.results import Answer, where
from pipelines.engine import Artefact
from pipelines.pipeline import Description
from pipelines.tracking import StageRun

TITLE = "How many samples a score needs"
INTRO = (
    "A law with a far mode of weight η at a distance R, smoothed by noise σ. Its score is learnt "
    "from m samples, and the error of what was learnt is measured in mean square (σ L2) and at "
    "the (1 − δ)-quantile (σ Dᵟ). m* is the least m of a grid from which on a quantile over "
    "training sets (0.75; networks: the median) of the error stays at or below ε. The far mode "
    "has the weight at which missing it costs 2 ε in mean square, so that η falls as (σ/R)². "
    "Claimed are shapes, not constants."
)


def page(
    config: ComplexityConfig,
    told: Sequence[Claim],
    answers: Sequence[Answer],
    rows: pa.Table,
    cost: Mapping[str, float],
    figures: Mapping[str, Figure],
) -> str:
    """Returns the page of the study.

    Arguments:
        config: The configuration.
        told: The claims.
        answers: Crossing points and exponents.
        rows: All rows.
        cost: What the cells cost.
        figures: The figures by name.
    """
    tables = [_exponents(answers), _samplers(rows), _flows(rows), _cost(cost)]
    return claims.page(TITLE, INTRO, told, figures, tables, config)


def _exponents(answers: Sequence[Answer]) -> Table:
    headings = ("learner", "quantity", "against", "exponent", "m* at each point")
    lines = []
    for one in answers:
        told = one.question
        points = ", ".join(
            f"{at:.3g}: {m.value:.0f}" for at, m in zip(one.values, one.crossings, strict=True)
        )
        lines.append((told.learner, told.quantity, told.against, _told(one.slope), points))
    note = "inf: the error does not cross ε on the grid of m; such points are left out of the fit."
    return Table("Exponents", headings, lines, note)


def _told(found: Interval | None) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else ""


def _samplers(rows: pa.Table) -> Table:
    """Returns means over seeds of the distances of samples."""
    names = ("sigma_l2", "tv", "w1", "w2", "far_mass", "far_mass_error")
    told = where(rows, panel="samplers")
    keys = ("size", "learner", "sampler", "missed", "m")
    grouped = told.group_by(keys).aggregate([(name, "mean") for name in names])
    order = [("size", "ascending"), ("learner", "ascending"), ("sampler", "ascending"),
             ("missed", "ascending"), ("m", "ascending")]  # fmt: skip
    lines = [
        (
            f"{row['learner']}, {row['sampler']}"
            + (", far samples left out" if row["missed"] else ""),
            str(row["size"]),
            str(row["m"] or ""),
            *("" if row[f"{n}_mean"] is None else f"{row[f'{n}_mean']:.3g}" for n in names),
        )
        for row in grouped.sort_by(order).to_pylist()
    ]
    eta = told["eta"][0].as_py()
    headings = ("scores and sampler", "d", "m", "σ L2", "TV", "W1", "W2", "far mass", "its error")
    note = f"Means over seeds; W1 and W2 sliced for d > 1; the true far mass is {eta:.3g}."
    return Table("Samplers", headings, lines, note)


def _flows(rows: pa.Table) -> Table:
    names = ("kl", "sigma_l2", "tv", "w1", "far_mass")
    told = where(rows, panel="flows")
    grouped = told.group_by(("ratio", "learner", "m")).aggregate([(n, "mean") for n in names])
    order = [("ratio", "ascending"), ("learner", "ascending"), ("m", "ascending")]
    lines = [
        (
            f"{'Gaussian' if row['ratio'] is None else 'far mode'}, {row['learner']}",
            str(row["m"]),
            f"{row['kl_mean'] * row['m']:.3g}",
            *(f"{row[f'{name}_mean']:.3g}" for name in names),
        )
        for row in grouped.sort_by(order).to_pylist()
    ]
    headings = ("flow in the plane", "m", "m KL", "KL (nats)", "σ L2", "TV", "W1", "far mass")
    note = "Exact samples by the inverse of the flow; a Gaussian has five parameters that count."
    return Table("Flows", headings, lines, note)


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
    shutil.copy(concluded / "report.html", folder)
    shutil.copytree(concluded / "figures", folder / "figures")
    shutil.copy(fitted / "results.parquet", folder)
    numbers = json.loads((concluded / "numbers.json").read_text())
    return {**numbers, "seeds": {"study": config.seed}}


def log(config: ComplexityConfig, value: Sequence[Artefact], folder: Path, run: StageRun) -> None:
    """Logs the parameters, the cost, the page, the figures and the results."""
    run.log_params(config.model_dump())
    run.log_metrics(json.loads((value[1].path / "numbers.json").read_text())["cost"])
    for name in ("report.html", "results.parquet"):
        run.log_artifacts(folder / name)
    run.log_artifacts(folder / "figures", "figures")


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the claims, what the study cost, and where everything is."""
    console.print(TITLE, highlight=False)
    console.print(claims.table([Claim(**claim) for claim in summary["claims"]]))
    cost = summary["cost"]
    lines = {
        "cost": f"{cost['study/cells']:.0f} cells, {cost['study/cpu_s_a_cell']:.2f} s of a core "
        f"each; {cost['study/cpu_busy']:.0%} of the cores busy",
        "stages": ", ".join(f"{stage} {fate}" for stage, fate in summary["stages"].items()),
        "results": summary["results"],
        "report": summary["report"],
        "to look": "ebflow ui",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", highlight=False, soft_wrap=True)
