"""Tables with a label that marks anomalies, from ``.npz``, ``.parquet`` and ``.csv`` files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ebflow.encoder import Encoder
from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.config import Section
from pipelines.engine.stages import Source
from pipelines.tracking.run import StageRun

LABEL = "label"
"""The column of a ``.parquet`` or ``.csv`` file that is 1 for anomalies and 0 for other rows."""

FORMATS = (".npz", ".parquet", ".csv")
ROWS = "rows.npz"

LEAST = 10
"""Normal rows at least."""


def labelled(config: Section, source: Source, *, run: StageRun) -> None:
    """Writes ``rows.npz``: the numbers ``X`` with shape (N, D), and the labels ``y``."""
    x, y = read(Path(source.location))
    np.savez_compressed(run.output / ROWS, X=x, y=y)


def files(sources: Sequence[str]) -> Iterator[Path]:
    """Yields files, and the files of folders by name; raises BadInput if there is none."""
    for source in map(Path, sources):
        found = [*source.iterdir()] if source.is_dir() else [source]
        tables = sorted(path for path in found if path.suffix in FORMATS)
        if not tables:
            expected = f"a file or a folder of {', '.join(FORMATS)}"
            raise BadInput(option="--sources", found=str(source), expected=expected)
        yield from tables


def opened(location: str) -> Source:
    """Returns a file as a source; raises BadInput if there is none."""
    if not Path(location).is_file():
        raise BadInput(option="--sources", found=f"no file {location}", expected="a table")
    return Source(location, sha256(Path(location)))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of a table with shape (N, D), and its labels, 0 or 1, with shape (N,).

    Texts, times and missing values of frames are encoded as ``FlowDetector`` does it.
    """
    x, y = _arrays(path) if path.suffix == ".npz" else _frame(path)
    y = y.astype(np.float64).ravel()
    normal = int((y == 0).sum())
    if x.ndim != 2 or len(x) != len(y) or not np.isin(y, (0, 1)).all() or not np.isfinite(x).all():
        found = f"X {x.shape}, y {y.shape}, labels {np.unique(y)[:4]}"
        raise BadInput(file=path, found=found, expected="finite X (N, D), and y (N,) of 0 and 1")
    if normal < LEAST or normal == len(y):
        found = f"{normal} rows with label 0, {len(y) - normal} with 1"
        raise BadInput(file=path, found=found, expected=f"{LEAST} normal rows, and one anomaly")
    return x, y.astype(np.int8)


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        if not {"X", "y"} <= {*arrays}:
            raise BadInput(file=path, found=", ".join(arrays), expected="arrays X and y")
        return arrays["X"].astype(np.float64), arrays["y"]


def _frame(path: Path) -> tuple[np.ndarray, np.ndarray]:
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    if LABEL not in frame:
        found = f"columns {', '.join(map(str, frame.columns[:8]))}"
        raise BadInput(file=path, found=found, expected=f"a column {LABEL!r} of 0 and 1")
    features = frame.drop(columns=LABEL)
    return Encoder(features)(features), frame[LABEL].to_numpy()
