"""``ebflow export``: the log-density of a flow as a graph in a file, to use without ebflow."""

import copy
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from ebflow import __version__
from ebflow.bijections.weighted import fixed_weights
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.randomness import RowGenerator, uniform
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.errors import StageFailed
from pipelines.inference.models import Model, ModelName, opened
from pipelines.inference.sampling import spread
from pipelines.inference.tables import check_output
from pipelines.store.files import drafted

Call = Callable[[Mapping[str, Tensor]], Tensor]
"""A function from inputs by their names to log-densities."""

TRACED = 3
"""Rows of the example that is traced."""

ROWS = 1000
"""Samples whose log-densities are compared before the file is written."""

TOLERANCE = 1e-5
"""Largest difference in units of max(1, |log p|), unless rounding alone is larger."""

ONNX = ("onnx", "onnxruntime", "onnxscript")
"""Packages that the format needs."""


@dataclass(frozen=True)
class Export:
    """Writes a trained flow as a graph from rows to log-densities, to use without ebflow.

    The input x holds any number of rows of raw data, in the flow's type and order of columns. The
    output has log-densities in nats, preprocessing included. Integer data need an input noise,
    uniform on [0, 1): average over several. A conditional flow needs an input context, a row for
    every row of x, with one-hot categories. The graph checks nothing. The file is written only if
    its log-densities of 1,000 samples agree with the flow's to 1e-5, or to 4 times the rounding of
    the flow's type if that is more.
    """

    model: ModelName
    format: Literal["torch-export", "onnx"]
    """torch-export: for torch.export.load, ends in .pt2; onnx: for any runtime, ends in .onnx"""
    output: Path
    """the file"""


def export(words: Sequence[str]) -> int:
    """Writes a graph."""
    options = tyro.cli(Export, prog="ebflow export", args=words)
    check_output(options.output, FORMATS[options.format][0])
    missing = [name for name in ONNX if find_spec(name) is None]
    if options.format == "onnx" and missing:
        raise BadInput(
            option="--format onnx",
            found=f"no {', '.join(missing)}",
            expected='the packages of pip install "ebflow[export]"',
        )
    with opened(options.model) as model, writing(store.home() / "logs" / "export.log"):
        print(_exported(model, options))
    print(f"written to    {options.output}")
    return 0


class Graph(nn.Module):
    """The log-density of a flow as one graph of tensors, with log Z as a constant.

    It checks nothing: if the flow would refuse a row, the log-density is NaN. Integers take an
    input ``noise``, uniform on [0, 1); the mean over the noise is a lower bound of the log-mass.
    A conditional flow takes a context for every row, with one-hot columns of categories.

    Arguments:
        flow: The flow; put in evaluation mode, its parameters frozen.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow.eval().requires_grad_(False)
        with fixed_weights(flow):
            self.log_normalizer = nn.Buffer(flow.log_normalizer().detach().clone())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in the flow's type.

        ``x`` and ``noise`` have the shape (N, *event), ``context`` (N, C).
        """
        first = self.flow.dequantizer
        noisy = first is not None and first.noisy
        return ("x",) + ("context",) * bool(self.flow.context) + ("noise",) * noisy

    @property
    def dtype(self) -> str:
        """The name of the flow's type."""
        return str(self.flow.dtype).removeprefix("torch.")

    def forward(
        self, x: Tensor, *, context: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Returns log p in nats with shape (N,)."""
        if self.flow.dequantizer is not None:
            zero = torch.zeros((), dtype=self.flow.dtype)
            x = self.flow.dequantizer.add_noise(x, zero, zero if noise is None else noise)
        if context is not None:  # so that the tracer sees as many as rows
            context = context.expand(x.shape[0], -1)
        return -self.flow(context).at(x).energy - self.log_normalizer


@torch.no_grad()
def traced(graph: Graph) -> torch.export.ExportedProgram:
    """Returns the traced graph, whose first dimension is free.

    Raises:
        RuntimeError: By PyTorch, if a layer decides by values of its input what it computes.
    """
    flow, rows = graph.flow, torch.export.Dim("rows")
    shapes = dict.fromkeys(graph.inputs, flow.event_shape)
    if "context" in shapes:
        shapes["context"] = (flow.context,)
    example = {
        name: torch.zeros(TRACED, *shape, dtype=flow.dtype) for name, shape in shapes.items()
    }
    return torch.export.export(graph, (), example, dynamic_shapes=dict.fromkeys(shapes, {0: rows}))


def _exported(model: Model, options: Export) -> str:
    """Writes the file; returns a line about its inputs, and one about the check."""
    graph, context = Graph(model.flow), spread(model, ROWS)
    _, write = FORMATS[options.format]
    with drafted(options.output) as draft:
        try:
            called = write(graph, _about(model, graph), draft)
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
    """Returns the operator that a format lacks, or else the start of the message."""
    operator = re.search(r"\b(aten|prims)[.:]+\w+", str(error))
    return f"operator {operator[0]}" if operator else str(error).strip().splitlines()[0][:200]


def _about(model: Model, graph: Graph) -> str:
    """Returns the description of inputs and output that goes into the file, as JSON."""
    optional = {
        "columns": model.columns and model.columns.to_dict(),
        "context": model.context and model.context.to_dict(),
        "levels": model.arrays.get("levels"),
    }
    about = {"ebflow": __version__, "output": "log-density (nats)", "inputs": graph.inputs}
    about |= {name: value for name, value in optional.items() if value}
    return json.dumps({**about, "dtype": graph.dtype})


@torch.no_grad()
def _differences(called: Call, graph: Graph, context: Tensor | None) -> tuple[float, float]:
    """Returns the largest differences of the graph and of float64 from the flow over samples.

    In units of max(1, |log p|); the difference of float64 is that of rounding.
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
    by_graph = called({name: inputs[name] for name in graph.inputs}).double()
    finite = expected.isfinite()
    unit = expected[finite].abs().clamp_min(1)
    return tuple(float(((t - expected)[finite].abs() / unit).max()) for t in (by_graph, exact))


def _torch_export(graph: Graph, about: str, path: Path) -> Call:
    with path.open("wb") as file:
        torch.export.save(traced(graph), file, extra_files={"ebflow.json": about})
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)


def _onnx(graph: Graph, about: str, path: Path) -> Call:
    import onnxruntime

    names = {"input_names": graph.inputs, "output_names": ["log_prob"]}
    # The exporter warns that it does not find torchvision.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    program = torch.onnx.export(traced(graph), (), dynamo=True, verbose=False, **names)
    program.model.metadata_props["ebflow"] = about
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call(inputs: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: value.numpy() for name, value in inputs.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return call


FORMATS = {"torch-export": (".pt2", _torch_export), "onnx": (".onnx", _onnx)}
"""By format, the suffix of files and the function that writes a graph.

It returns the function in the file.
"""
