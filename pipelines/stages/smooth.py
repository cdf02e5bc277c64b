"""From prepared data to rows of one class, smoothed by noise: what a reference flow is of."""

__all__ = ["smooth"]

from pathlib import Path

from ebflow.alignment.rows import smoothed
from ebflow.data.loader import Dataset
from pipelines.alignment.config import SmoothConfig
from pipelines.tracking import StageRun


def smooth(config: SmoothConfig, data: Path, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes the smoothed rows as a prepared data set."""
    run.log_params(config.model_dump())
    manifest = smoothed(
        Dataset(data),
        output,
        noise=config.noise,
        draws=config.draws,
        seed=config.seed,
        label=config.label,
    )
    run.log_metrics({f"rows/{split}": count for split, count in manifest.counts.items()})
