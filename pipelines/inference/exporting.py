"""``ebflow export``: a trained flow as a file of a graph, which needs no ebflow."""

import copy
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ebflow import __version__
from ebflow.randomness import RowGenerator, uniform
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.errors import StageFailed
from pipelines.inference import graphs
from pipelines.inference.commands import Export
from pipelines.inference.contexts import spread
from pipelines.inference.graphs import Graph
from pipelines.inference.models import Model, opened
from pipelines.store.files import drafted

Call = Callable[[Mapping[str, Tensor]], Tensor]
"""What gives log-densities of inputs by their names."""

ROWS = 1000
"""Samples whose log-densities are compared before the file is there."""

TOLERANCE = 1e-5
"""Of a difference, in units of max(1, |log p|), where rounding does less."""


def run(options: Export) -> int:
    """Exports a model."""
    with opened(options.model) as model, writing(store.home() / "logs" / "export.log"):
        summary = _exported(model, options)
    print(f"{summary}\nwritten to    {options.output}")
    return 0


def _exported(model: Model, options: Export) -> str:
    """Writes the file; returns a line on what it takes, and one on how it was checked."""
    graph, context = Graph(model.flow), spread(model, ROWS)
    with drafted(options.output) as draft:
        try:
            called = FORMATS[options.format](graph, _about(model, graph), draft)
        except RuntimeError as error:
            raise StageFailed(f"the flow cannot be exported so: {_lacking(error)}") from error
        difference, rounding = _differences(called, graph, context)
        if not difference <= max(TOLERANCE, 4 * rounding):
            raise StageFailed(
                f"{model.label}: the graph's log-densities differ from the flow's by "
                f"{difference:.2g}, expected at most {TOLERANCE:g}, or 4 times what rounding does "
                f"to the flow's own, {rounding:.2g}"
            )
    shape = ", ".join(map(str, ("N", *graph.flow.event_shape)))
    takes = f"takes         {', '.join(graph.inputs)}: {graph.dtype} ({shape})"
    checked = f"{ROWS} rows: differs by {difference:.1g} of the log-density"
    return f"{takes}\nchecked       {checked} (rounding alone: {rounding:.1g})"


def _lacking(error: RuntimeError) -> str:
    """Returns the operator that a format cannot hold, or else what was said."""
    operator = re.search(r"\b(aten|prims)[.:]+\w+", str(error))
    return f"operator {operator[0]}" if operator else str(error).strip().splitlines()[0][:200]


def _about(model: Model, graph: Graph) -> str:
    """Returns what goes into the file about its inputs and its output, as JSON."""
    about = {"ebflow": __version__, "output": "log-density (nats)", "inputs": graph.inputs}
    for name, columns in (("columns", model.columns), ("context", model.context)):
        about |= {name: columns.to_dict()} if columns else {}
    levels = {"levels": model.arrays["levels"]} if model.arrays.get("levels") else {}
    return json.dumps({**about, "dtype": graph.dtype, **levels})


@torch.no_grad()
def _differences(called: Call, graph: Graph, context: Tensor | None) -> tuple[float, float]:
    """Returns how far the graph, and the flow's own rounding, are from the flow, over samples.

    Both in units of max(1, |log p|), the largest of all rows; rounding is the difference from the
    flow in float64.
    """
    flow = graph.flow
    context = None if context is None else context.to(flow.device, flow.dtype)
    shape = ROWS if context is None else ()
    x = flow(context).sample_tensor(shape, generator=RowGenerator(0, "sample")).to(flow.dtype)
    noise = uniform(x.shape, x, RowGenerator(0, "noise"))
    inputs = {"x": x, "context": context, "noise": noise}
    expected = flow(context).log_prob(x, generator=RowGenerator(0, "noise")).double()
    rows = flow.dequantize(x, generator=RowGenerator(0, "noise")).double()
    double = copy.deepcopy(flow).double()
    exact = -double.at(rows, context=context).energy - double.log_normalizer()
    given = called({name: inputs[name] for name in graph.inputs}).double()
    finite = expected.isfinite()
    unit = expected[finite].abs().clamp_min(1)
    return tuple(float(((t - expected)[finite].abs() / unit).max()) for t in (given, exact))


def _torch_export(graph: Graph, about: str, path: Path) -> Call:
    with path.open("wb") as file:
        torch.export.save(graphs.export(graph), file, extra_files={"ebflow.json": about})
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)


def _onnx(graph: Graph, about: str, path: Path) -> Call:
    import onnxruntime

    names = {"input_names": graph.inputs, "output_names": ["log_prob"]}
    # It tells that it finds no torchvision.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    made = torch.onnx.export(graphs.export(graph), (), dynamo=True, verbose=False, **names)
    made.model.metadata_props["ebflow"] = about
    made.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call(inputs: Mapping[str, Tensor]) -> Tensor:
        given = {name: value.numpy() for name, value in inputs.items()}
        return torch.from_numpy(session.run(None, given)[0])

    return call


FORMATS = {"torch-export": _torch_export, "onnx": _onnx}
"""How a graph is written in each format, and what the file computes."""
