"""Prepared data sets for tests."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY, Mock

from pipelines.config import DataConfig
from pipelines.data import prepare as stage
from pipelines.data.manifest import Manifest


def config(source, **options) -> DataConfig:
    """Returns an unchecked configuration; by default no value may be missing."""
    chosen = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    return DataConfig.model_construct(source=str(source), **{"missing": None, **chosen})


def prepare(source, output, *, shard_rows=65536, **options) -> Manifest:
    """Writes a source into a folder of shards."""
    data, content = config(source, **options), SimpleNamespace(digest=ANY)
    stage.prepare(data, content, run=Mock(output=Path(output)), shard_rows=shard_rows)
    return Manifest.load(output)
