"""``ebflow data fetch NAME``: downloads a data set that no package bundles."""

__all__ = ["DataFetch", "run"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ebflow.data.images import fetch
from pipelines.cli.parsing import parse


@dataclass(frozen=True)
class DataFetch:
    """Downloads a benchmark's files into the folder EBFLOW_DATA (~/.cache/ebflow/data)."""

    name: Annotated[str, tyro.conf.Positional]
    """mnist, cifar10, stl10 or celeba"""


def run(words: Sequence[str]) -> int:
    """Downloads a data set and says where it lies."""
    folder = fetch(parse(DataFetch, words, "ebflow data fetch").name)
    print(f"fetched into {folder}")
    return 0
