"""``ebflow export``: a trained flow as a file of a graph, which needs no ebflow."""

import copy
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ebflow.errors import BadInput
from pipelines import store
from pipelines.answers import OfModel, check_output
from pipelines.cli.parsing import parse
from pipelines.cluster.logs import writing
from pipelines.errors import StageFailed

if TYPE_CHECKING:
    import torch

    from pipelines.answers.graphs import Graph
    from pipelines.answers.models import Model

    Inputs = Mapping[str, torch.Tensor]

ROWS = 1000
"""Samples whose log-densities are compared before the file is there."""

TOLERANCE = 1e-5
"""Of a difference, in units of max(1, |log p|), where rounding does less."""

Format = Literal["torch-export", "onnx"]

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx"}


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

    format: Format
    """torch-export: for torch.export.load, ends in .pt2; onnx: for any runtime, ends in .onnx"""
    output: Path
    """the file"""


def run(words: Sequence[str]) -> int:
    """Exports a model."""
    options = parse(Export, words, "ebflow export")
    _check(options)
    from pipelines.answers.models import opened

    with opened(options.model) as model, writing(store.home() / "logs" / "export.log"):
        summary = _exported(model, options)
    print(f"{summary}\nwritten to    {options.output}")
    return 0


def _check(options: Export) -> None:
    check_output(options.output, SUFFIXES[options.format])
    needed = ("onnx", "onnxruntime", "onnxscript") if options.format == "onnx" else ()
    if missing := [name for name in needed if find_spec(name) is None]:
        raise BadInput(
            f"--format onnx: found no {', '.join(missing)}, expected the packages of "
            'pip install "ebflow[export]"'
        )


def _exported(model: "Model", options: Export) -> str:
    """Writes the file; returns a line on what it takes, and one on how it was checked."""
    from ebflow import files
    from pipelines.answers import contexts
    from pipelines.answers.graphs import Graph

    graph, context = Graph(model.flow), contexts.spread(model, ROWS)
    write, load = FORMATS[options.format]
    with files.drafted(options.output) as draft:
        _written(write, graph, _about(model, graph), draft)
        difference, rounding = _differences(load(draft), graph, context)
        if not difference <= max(TOLERANCE, 4 * rounding):
            raise StageFailed(
                f"{model.label}: the graph's log-densities differ from the flow's by "
                f"{difference:.2g}, expected at most {TOLERANCE:g}, or 4 times what rounding does "
                f"to the flow's own, {rounding:.2g}"
            )
    shape = ", ".join(map(str, ("N", *graph.flow.event_shape)))
    takes = f"takes         {', '.join(graph.inputs)}: {_type(graph)} ({shape})"
    checked = f"{ROWS} rows: differs by {difference:.1g} of the log-density"
    return f"{takes}\nchecked       {checked} (rounding alone: {rounding:.1g})"


def _written(
    write: Callable[["Graph", str, Path], None], graph: "Graph", about: str, draft: Path
) -> None:
    """Writes a graph; what the format cannot hold is one line."""
    try:
        write(graph, about, draft)
    except RuntimeError as error:
        operator = re.search(r"\b(aten|prims)[.:]+\w+", str(error))
        what = f"operator {operator[0]}" if operator else str(error).strip().splitlines()[0][:200]
        raise StageFailed(f"the flow cannot be exported so: {what}") from error


def _about(model: "Model", graph: "Graph") -> str:
    """Returns what goes into the file about its inputs and its output, as JSON."""
    from ebflow import __version__

    about = {"ebflow": __version__, "output": "log-density (nats)", "inputs": graph.inputs}
    kept = {
        key: model.columns[key]
        for key in ("names", "units", "levels", "categories")
        if key in model.columns
    }
    given = {"context": model.given} if model.given else {}
    return json.dumps({**about, "dtype": _type(graph), **kept, **given})


def _type(graph: "Graph") -> str:
    return str(graph.flow.like.dtype).removeprefix("torch.")


def _differences(
    found: Callable[["Inputs"], "torch.Tensor"], graph: "Graph", context: "torch.Tensor | None"
) -> tuple[float, float]:
    """Returns how far the graph, and the flow's own rounding, are from the flow, over samples.

    Both in units of max(1, |log p|), the largest of all rows; rounding is the difference from the
    flow in float64.
    """
    import torch

    from ebflow.randomness import RowGenerator, uniform

    flow = graph.flow
    with torch.no_grad():
        if context is not None:
            context = context.to(flow.like)
        x = flow(context).sample(ROWS if context is None else (), RowGenerator(0, "sample"))
        noise = uniform(x.shape, x, RowGenerator(0, "noise"))
        inputs = {"x": x, "context": context, "noise": noise}
        expected = flow(context).log_prob(x, RowGenerator(0, "noise")).double()
        rows = flow.completed(x, RowGenerator(0, "noise")).double()
        exact = copy.deepcopy(flow).double().log_prob(rows, context=context)
        given = found({name: inputs[name] for name in graph.inputs}).double()
    finite = expected.isfinite()
    unit = expected[finite].abs().clamp_min(1)
    return tuple(float(((t - expected)[finite].abs() / unit).max()) for t in (given, exact))


def _write_torch(graph: "Graph", about: str, path: Path) -> None:
    import torch

    from pipelines.answers.graphs import export

    with path.open("wb") as file:
        torch.export.save(export(graph), file, extra_files={"ebflow.json": about})


def _load_torch(path: Path) -> Callable[["Inputs"], "torch.Tensor"]:
    import torch

    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)


def _write_onnx(graph: "Graph", about: str, path: Path) -> None:
    import torch

    from pipelines.answers.graphs import export

    names = {"input_names": graph.inputs, "output_names": ["log_prob"]}
    # It tells that it finds no torchvision.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    made = torch.onnx.export(export(graph), (), dynamo=True, verbose=False, **names)
    made.model.metadata_props["ebflow"] = about
    made.save(path, external_data=False)


def _load_onnx(path: Path) -> Callable[["Inputs"], "torch.Tensor"]:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call(inputs: "Inputs") -> "torch.Tensor":
        given = {name: value.numpy() for name, value in inputs.items()}
        return torch.from_numpy(session.run(None, given)[0])

    return call


FORMATS = {"torch-export": (_write_torch, _load_torch), "onnx": (_write_onnx, _load_onnx)}
"""How each format is written and loaded."""
