"""From a source to checked, split and sharded data with a manifest."""

from pipelines.config import DataConfig
from pipelines.data.prepare import prepare as write
from pipelines.tracking.run import StageRun


def prepare(data: DataConfig, location: str, *, run: StageRun) -> None:
    """Writes the prepared data."""
    run.log_params(data.model_dump())
    options = data.model_dump(exclude={"source"}, exclude_none=True)
    manifest = write(location, run.output, **options)
    run.log_input(manifest, "prepared")
    run.log_metrics({f"rows/{split}": count for split, count in manifest.counts.items()})
    run.log_artifacts(run.output / "manifest.json")
