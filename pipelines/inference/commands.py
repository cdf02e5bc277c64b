"""The commands on a trained flow, and their options.

Options are checked before the module of a command is imported, because that imports torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ebflow.errors import BadInput

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx"}
"""Suffixes of files by the format of their graph."""

ONNX = ("onnx", "onnxruntime", "onnxscript")
"""Packages that the format needs."""


@dataclass(frozen=True)
class OfModel:
    """Options of every command."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """folder of a run or of a checkpoint, or a registered model: models:/NAME@ALIAS"""


@dataclass(frozen=True)
class OfRows(OfModel):
    """Options of every command that reads rows."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """the rows: any source that --data.source of `ebflow run density` takes"""
    output: Path
    """Parquet file to write"""
    seed: int = 0
    """seed of samples, and of the dequantization noise of integers"""
    workers: int | None = None
    """tasks of Ray at a time, one core each; None: this process, or the cluster at RAY_ADDRESS"""
    dry_run: bool = False
    """print the rows and columns; write nothing"""


@dataclass(frozen=True)
class Score(OfRows):
    """Scores rows by a trained flow, in the order of the source.

    The output has the columns log_prob (nats, of the raw data) and bits_per_dim (integer data).
    A flow trained by `ebflow run density` adds rank, the number of training rows (10,000 at most)
    that are at least as unlikely; p_value, (1 + rank) / (1 + training rows), which is too small
    if the flow overfits; and p_value_test, the same for test rows, which is exact. Columns are
    matched by name, arrays by position. If RAY_ADDRESS is set, a cluster scores.
    """


@dataclass(frozen=True)
class Impute(OfRows):
    """Samples missing values (nulls and NaN) of a table given the observed ones, by MCMC.

    The output has --draws copies of every row, in the columns and types of the data that the flow
    was trained on, and then the contexts of a conditional flow, which must be complete. Observed
    values stay as they are. Further columns are _row (the number in the source), _draw,
    _acceptance (the share of steps by which the row's Markov chains moved) and _r_hat (near 1 if
    the chains have mixed; rows above 1.1 are resampled with more steps, and then by Hamiltonian
    Monte Carlo). Complete rows have 1 and 1.
    """

    draws: int = 5
    """samples of each row"""
    steps: int = 40
    """steps of each Markov chain, an even number"""


@dataclass(frozen=True)
class Sample(OfModel):
    """Samples rows from a trained flow, in the columns and types of its training data.

    Integers are integers. A conditional flow adds the columns of the contexts: those of a file,
    row by row, or one that is typed. The first rows do not depend on the number of rows.
    """

    output: Path
    """Parquet file to write"""
    rows: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None
    """number of rows, for each row of a file of contexts; None: 1000, or one for each"""
    context: tuple[str, ...] = ()
    """of a conditional flow: a file with the columns of its contexts, or name=value of each"""
    seed: int = 0
    """seed of the samples"""
    dry_run: bool = False
    """print the number of rows and the columns; write nothing"""


@dataclass(frozen=True)
class Export(OfModel):
    """Writes a trained flow as a graph from rows to log-densities, to use without ebflow.

    The input x holds any number of rows of raw data, in the flow's type and order of columns. The
    output has log-densities in nats, preprocessing included. Integer data need an input noise,
    uniform on [0, 1): average over several. A conditional flow needs an input context, a row for
    every row of x, with one-hot categories. The graph checks nothing. The file is written only if
    its log-densities of 1,000 samples agree with the flow's to 1e-5, or to 4 times the rounding of
    the flow's type if that is more.
    """

    format: Literal["torch-export", "onnx"]
    """torch-export: for torch.export.load, ends in .pt2; onnx: for any runtime, ends in .onnx"""
    output: Path
    """the file"""


def score(words: Sequence[str]) -> int:
    """Scores a source."""
    options = tyro.cli(Score, prog="ebflow score", args=words)
    _check_rows(options)
    from pipelines.inference import scoring

    return scoring.run(options)


def impute(words: Sequence[str]) -> int:
    """Imputes a table."""
    options = tyro.cli(Impute, prog="ebflow impute", args=words)
    _check_least("--draws", options.draws)
    if options.steps < 4 or options.steps % 2:
        raise BadInput(f"--steps: found {options.steps}, expected an even number of at least 4")
    _check_rows(options)
    from pipelines.inference import imputing

    return imputing.run(options)


def sample(words: Sequence[str]) -> int:
    """Samples rows."""
    options = tyro.cli(Sample, prog="ebflow sample", args=words)
    _check_least("--rows", options.rows)
    _check_output(options.output)
    from pipelines.inference import sampling

    return sampling.run(options)


def export(words: Sequence[str]) -> int:
    """Writes a graph."""
    options = tyro.cli(Export, prog="ebflow export", args=words)
    _check_output(options.output, SUFFIXES[options.format])
    missing = [name for name in ONNX if find_spec(name) is None]
    if options.format == "onnx" and missing:
        raise BadInput(
            f"--format onnx: found no {', '.join(missing)}, expected the packages of "
            'pip install "ebflow[export]"'
        )
    from pipelines.inference import exporting

    return exporting.run(options)


def _check_rows(options: OfRows) -> None:
    _check_output(options.output)
    _check_least("--workers", options.workers)


def _check_least(option: str, found: int | None) -> None:
    if found is not None and found < 1:
        raise BadInput(f"{option}: found {found}, expected at least 1")


def _check_output(output: Path, suffix: str = ".parquet") -> None:
    """Raises BadInput unless a file of the kind can be written there."""
    if output.suffix != suffix or output.is_dir():
        raise BadInput(f"--output: found {output}, expected a file that ends in {suffix}")
    if not (folder := output.absolute().parent).is_dir():
        raise BadInput(f"--output: found no folder {folder}, expected one: make it")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"--output: found {folder}, where one may not write, expected another")
