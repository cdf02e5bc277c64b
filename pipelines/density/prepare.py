"""From a source to checked, split and sharded data with a manifest."""

from ebflow.errors import BadInput
from pipelines.config import DataConfig
from pipelines.data.prepare import prepare as write
from pipelines.data.reader import record_digest
from pipelines.engine.stages import Source
from pipelines.tracking.run import StageRun


def prepare(data: DataConfig, source: Source, *, run: StageRun) -> None:
    """Writes the prepared data.

    Raises:
        BadInput: If the data are bad, or have changed since the run computed their digest.
    """
    run.log_params(data.model_dump())
    options = data.model_dump(exclude={"source"}, exclude_none=True)
    manifest = write(source.location, run.output, **options)
    if record_digest(manifest.source) != source.digest:
        raise BadInput(
            f"{source.location}: found other data than when the run started, expected the same "
            "until they are prepared: repeat the command"
        )
    run.log_input(manifest, "prepared")
    run.log_metrics({f"rows/{split}": count for split, count in manifest.counts.items()})
    run.log_artifacts(run.output / "manifest.json")
