"""What the study of sample complexity leaves: the folder of a run, and what is printed."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pipelines.engine.pipeline import Description
from pipelines.reporting import claims
from pipelines.reporting.terminal import show_run
from pipelines.sample_complexity.config import ComplexityConfig

RESULTS = "results.parquet"

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


def describe(config: ComplexityConfig) -> Description:
    """Returns the scale and the seed."""
    return Description(
        parts=(f"scale {config.scale}",),
        about=f"**{TITLE}.** {INTRO}",
        tags={"ebflow.scale": config.scale, "ebflow.seed": str(config.seed)},
    )


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the claims, what the study cost, and where everything is."""
    console.print(TITLE)
    claims.show(console, summary)
    cost = summary["cost"]
    text = f"{cost['study/cells']} cells, {cost['study/cpu_s_a_cell']:.2f} s of a core each"
    show_run(console, summary, {"cost": text}, results=summary["results"])
