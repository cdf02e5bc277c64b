"""From a source to checked, split and sharded data with a manifest."""

from pathlib import Path

from ebflow.data.prepare import prepare as write
from pipelines.config import DataConfig
from pipelines.tracking import StageRun


def prepare(data: DataConfig, location: str, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes the prepared data into ``output``."""
    run.log_params(data.model_dump())
    manifest = write(location, output, **data.model_dump(exclude={"source"}, exclude_none=True))
    run.log_input(manifest, "prepared")
    run.log_metrics({f"rows/{split}": count for split, count in manifest.counts.items()})
    run.log_artifacts(output / "manifest.json")
