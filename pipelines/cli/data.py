"""``ebflow data list|fetch``: the named data sets, and files of benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from pipelines.cli import benchmarks
from pipelines.data.files import FORMATS
from pipelines.data.named import SOURCES
from pipelines.reporting.terminal import terminal


@dataclass(frozen=True)
class List:
    """Lists the named data sets."""


def named(words: Sequence[str]) -> int:
    """Lists the named data sets."""
    tyro.cli(List, prog="ebflow data list", args=words)
    table = Table("name", "rows", "shape", "what", "from where")
    for name, source in SOURCES.items():
        shape = "×".join(map(str, source.shape))
        table.add_row(name, str(source.rows), shape, source.description, source.provenance)
    console = terminal()
    console.print(table)
    ends = ", ".join(FORMATS)
    console.print(f"or the path of a file ({ends}), or of a folder of .parquet files or of images")
    return 0


@dataclass(frozen=True)
class Fetch:
    """Downloads a benchmark's files into the folder EBFLOW_DATA (~/.cache/ebflow/data)."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """mnist, cifar10, cifar100, stl10 or celeba"""


def fetch(words: Sequence[str]) -> int:
    """Downloads a data set and says where it lies."""
    path = benchmarks.fetch(tyro.cli(Fetch, prog="ebflow data fetch", args=words).name)
    print(f"fetched into {path}")
    return 0
