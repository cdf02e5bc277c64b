"""What a job takes along to a cluster: the checkout, and further files."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ebflow.errors import BadInput


def checkout() -> Path:
    """Returns the folder whose code runs here, and is to run there.

    Raises:
        BadInput: If ebflow is installed as a copy, with no checkout beside it.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise BadInput(f"{root}: found an installed ebflow, expected a checkout, to send its code")
    return root


@contextmanager
def packed(files: Mapping[str, str]) -> Iterator[Path]:
    """Gives a folder for Ray to pack: the checkout, by links, and ``files``, by their names.

    Ray follows the links, and leaves out what a ``.gitignore`` names.
    """
    with tempfile.TemporaryDirectory(prefix="ebflow-job-") as name:
        folder = Path(name)
        for entry in checkout().iterdir():
            (folder / entry.name).symlink_to(entry)
        for file, text in files.items():
            (folder / file).write_text(text)
        yield folder
