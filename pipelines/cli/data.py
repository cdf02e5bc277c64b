"""``ebflow data list|fetch``: the named data sets, and benchmarks of images as Parquet files."""

from typing import Annotated, Literal

import tyro
from rich.table import Table

from pipelines.data import benchmarks
from pipelines.data.files import FORMATS
from pipelines.data.named import SOURCES
from pipelines.reporting.terminal import terminal


def named() -> None:
    """Lists the named data sets."""
    table = Table("name", "rows", "shape", "what", "from where")
    for name, source in SOURCES.items():
        shape = "×".join(map(str, source.shape))
        table.add_row(name, str(source.rows), shape, source.description, source.provenance)
    console = terminal()
    console.print(table)
    ends = ", ".join(FORMATS)
    console.print(f"or the path of a file ({ends}), or of a folder of .parquet files or of images")


def fetch(name: Annotated[Literal[*benchmarks.BENCHMARKS], tyro.conf.Positional], /) -> None:
    """Downloads a benchmark into the folder EBFLOW_DATA (~/.cache/ebflow/data)."""
    print(f"fetched into {benchmarks.fetch(name)}")
