"""The commands about a trained flow: what each is told, and the module that carries it out.

Options are parsed and checked before that is imported, so that help and bad input cost no torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ebflow.errors import BadInput
from pipelines.cli.parsing import parse
from pipelines.tracking.server import check_port

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx"}
"""How the files of a graph end, by their format."""

ONNX = ("onnx", "onnxruntime", "onnxscript")
"""Packages that the format needs."""


@dataclass(frozen=True)
class OfModel:
    """What every command is told."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """folder of a run or of a checkpoint, or a registered model: models:/NAME@ALIAS"""


@dataclass(frozen=True)
class OfRows(OfModel):
    """What every command is told that answers about rows of a source."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """source of the rows: all that --data.source of `ebflow run density` takes"""
    output: Path
    """Parquet file for what comes out"""
    seed: int = 0
    """where the dequantization noise of integers comes from, and draws"""
    workers: int | None = None
    """processes of Ray Data, of one core each; None: this one, or with RAY_ADDRESS all it gives"""
    dry_run: bool = False
    """tell what would be answered; write nothing"""


@dataclass(frozen=True)
class Score(OfRows):
    """Scores rows by a trained flow, in the order of the source.

    The output has the columns log_prob (nats, of the raw data), bits_per_dim (of integer data),
    and of a flow that `ebflow run density` trained: rank, the number of training rows (of 10,000
    at most) that are as unlikely or more so; p_value, (1 + rank) / (1 + training rows), too small
    if the flow over-fits; and p_value_test, the same among the test rows, which is exact. Columns
    are matched by name, arrays by position. Interrupted, the same command goes on where it
    stopped. With RAY_ADDRESS set, a cluster scores.
    """


@dataclass(frozen=True)
class Impute(OfRows):
    """Fills in the missing entries of a table, nulls and NaN, by draws given the rest of the row.

    The output has every row as often as it is drawn, in the columns and types of the data that
    the flow was trained on: entries that are there stay as they are; a conditional flow's
    contexts must be whole, and stand behind. Beside them stand _row (its
    number in the source), _draw, and of its Markov chains _acceptance (the share of steps by which
    they moved) and _r_hat (near 1 if the draws have forgotten where they began; rows above 1.1 are
    drawn again by more steps, in the end with leapfrogs). Complete rows have 1 and 1. Interrupted,
    the same command goes on where it stopped.
    """

    draws: int = 5
    """draws of each row"""
    steps: int = 40
    """steps of every chain, an even number"""


@dataclass(frozen=True)
class Sample(OfModel):
    """Draws rows from a trained flow, in the columns and types of the data that it was trained on.

    Integers are integers. A conditional flow's rows have their contexts' columns behind: those of
    a file, row by row, or one that is typed. The first rows are the same however many are drawn.
    """

    output: Path
    """Parquet file for the rows"""
    rows: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None
    """how many, of each row of a file of contexts; None: 1000, or one of each"""
    context: tuple[str, ...] = ()
    """of a conditional flow: a file that has its contexts' columns, or name=value of each"""
    seed: int = 0
    """where they come from"""
    dry_run: bool = False
    """tell what would be drawn; write nothing"""


@dataclass(frozen=True)
class Export(OfModel):
    """Writes a trained flow as a graph that programs without ebflow load: rows to log-densities.

    The input x holds rows of raw data in the flow's type, in its order of columns, any number of
    them; the output log-densities in nats, preprocessing included. Of integers there is an input
    noise, uniform on [0, 1): average over draws of it. A conditional flow has an input context, a
    row of it for every row of x, categories one-hot. Nothing is checked by the graph.
    The file is written if its log-densities of 1,000 samples are the flow's, to 1e-5 of them or,
    where rounding to the flow's type does more, to 4 times that.
    """

    format: Literal["torch-export", "onnx"]
    """torch-export: for torch.export.load, ends in .pt2; onnx: for any runtime, ends in .onnx"""
    output: Path
    """the file"""


@dataclass(frozen=True)
class Serve(OfModel):
    """Serves log-densities on this machine (127.0.0.1) until Ctrl-C, by MLflow's scoring server.

    It answers POST /invocations, of {"dataframe_split": {"columns": [...], "data": [[...]]}} for a
    table, whose columns are found by their names, and of {"instances": [[...]]} for arrays.
    """

    port: int = 5001
    """port, 1 … 65535"""


def score(words: Sequence[str]) -> int:
    """Scores a source."""
    options = parse(Score, words, "ebflow score")
    _check_rows(options)
    from pipelines.inference import scoring

    return scoring.run(options)


def impute(words: Sequence[str]) -> int:
    """Fills in a table."""
    options = parse(Impute, words, "ebflow impute")
    _check_least("--draws", options.draws)
    if options.steps < 4 or options.steps % 2:
        raise BadInput(f"--steps: found {options.steps}, expected an even number of at least 4")
    _check_rows(options)
    from pipelines.inference import imputing

    return imputing.run(options)


def sample(words: Sequence[str]) -> int:
    """Draws rows."""
    options = parse(Sample, words, "ebflow sample")
    _check_least("--rows", options.rows)
    _check_output(options.output)
    from pipelines.inference import sampling

    return sampling.run(options)


def export(words: Sequence[str]) -> int:
    """Writes a graph."""
    options = parse(Export, words, "ebflow export")
    _check_output(options.output, SUFFIXES[options.format])
    missing = [name for name in ONNX if find_spec(name) is None]
    if options.format == "onnx" and missing:
        raise BadInput(
            f"--format onnx: found no {', '.join(missing)}, expected the packages of "
            'pip install "ebflow[export]"'
        )
    from pipelines.inference import exporting

    return exporting.run(options)


def serve(words: Sequence[str]) -> int:
    """Serves a model until Ctrl-C."""
    options = parse(Serve, words, "ebflow serve")
    check_port(options.port)
    from pipelines.inference import serving

    return serving.run(options)


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
