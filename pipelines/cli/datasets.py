"""``ebflow data list``: the named data sets."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ebflow.data.formats import FORMATS
from ebflow.data.named import SOURCES
from pipelines.cli.parsing import parse
from pipelines.reporting.terminal import terminal


@dataclass(frozen=True)
class DataList:
    """Lists the named data sets."""


def run(words: Sequence[str]) -> int:
    """Lists the named data sets."""
    parse(DataList, words, "ebflow data list")
    table = Table("name", "rows", "shape", "what", "from where")
    for name, source in SOURCES.items():
        shape = "×".join(map(str, source.shape))
        table.add_row(name, str(source.rows), shape, source.description, source.provenance)
    console = terminal()
    console.print(table)
    ends = ", ".join(FORMATS)
    console.print(f"or the path of a file ({ends}), or of a folder of .parquet files or of images")
    return 0
