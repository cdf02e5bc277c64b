"""``ebflow export``: the log-density of a flow as a graph in ONNX, to use without ebflow."""

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.verification import verify_onnx_program

from ebflow import __version__
from ebflow.bijections.weighted import fixed_weights
from ebflow.errors import BadInput
from ebflow.flow import Flow
from ebflow.randomness import RowGenerator, uniform
from pipelines import store
from pipelines.cluster.environment import log_to
from pipelines.errors import StageFailed
from pipelines.inference.models import Model, ModelName, load
from pipelines.inference.tables import check_output
from pipelines.store.files import drafted

ROWS = 1000  # Samples whose log-densities are compared before the file is written
TOLERANCE = 1e-3  # Largest absolute or relative difference; rounding alone is less


def export(model: ModelName, output: Path) -> None:
    """Writes a trained flow as a graph in ONNX from rows to log-densities, for any runtime.

    The input x holds any number of rows of raw data, in the flow's type and order of columns. The
    output has log-densities in nats, preprocessing included. Integer data need an input noise,
    uniform on [0, 1): average over several. A conditional flow needs an input context, a row for
    every row of x, with one-hot categories. The graph checks nothing. The file is written only if
    its log-densities of 1,000 samples agree with the flow's.

    Arguments:
        output: the file, which ends in .onnx
    """
    check_output(output, [".onnx"])
    flow = load(model)
    has_store = os.access(store.home(), os.W_OK)
    log_to(store.home() / "logs" / "export.log" if has_store else Path(os.devnull))
    print(exported(flow, output))
    print(f"written to    {output}")


class Graph(nn.Module):
    """The log-density of a flow as one graph of tensors, with log Z as a constant.

    Its inputs are in the flow's type. Rows ``x`` have the shape (N, *event). Integers need
    ``noise`` of that shape, uniform on [0, 1); the mean over the noise is a lower bound of the
    log-mass. A conditional flow needs ``context`` with shape (N, C), categories one-hot. The graph
    checks nothing: if the flow would refuse a row, the log-density is NaN.

    The flow is put in evaluation mode, its parameters frozen.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow.eval().requires_grad_(False)
        with fixed_weights(flow):
            self.log_normalizer = nn.Buffer(flow.log_normalizer().detach().clone())
        noisy = flow.dequantizer is not None and flow.dequantizer.noisy
        self.inputs = ("x",) + ("context",) * bool(flow.context) + ("noise",) * noisy

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

    def example(self, rows: int) -> dict[str, Tensor]:
        """Returns samples of the flow as inputs; contexts are the mean of the training rows'."""
        flow, noise = self.flow, RowGenerator(0, "export")
        context = flow.context_mean.expand(rows, -1).clone() if flow.context else None
        x = flow(context).sample_tensor(rows if context is None else (), generator=noise)
        x = x.to(flow.dtype)
        inputs = {"x": x, "context": context, "noise": uniform(x.shape, x, noise)}
        return {name: inputs[name] for name in self.inputs}


@torch.no_grad()
def traced(graph: Graph, rows: int = 3) -> torch.export.ExportedProgram:
    """Returns the graph, traced for some rows; their number is free.

    Raises:
        RuntimeError: By PyTorch, if a layer decides by values of its input what it computes.
    """
    free = dict.fromkeys(graph.inputs, {0: torch.export.Dim("rows")})
    return torch.export.export(graph, (), graph.example(rows), dynamic_shapes=free)


def exported(model: Model, output: Path) -> str:
    """Writes the file; returns a line about its inputs, and one about the check.

    Raises:
        BadInput: If a package is missing.
        StageFailed: If the graph cannot be written, or its log-densities differ from the flow's.
    """
    if missing := [name for name in ("onnxruntime", "onnxscript") if find_spec(name) is None]:
        expected = 'the packages of pip install "ebflow[export]"'
        raise BadInput(found=f"no {', '.join(missing)}", expected=expected)
    # The exporter warns that it does not find torchvision.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    graph = Graph(model.flow)
    names = {"input_names": graph.inputs, "output_names": ["log_prob"]}
    try:
        program = torch.onnx.export(traced(graph), (), dynamo=True, verbose=False, **names)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise StageFailed(f"the flow cannot be exported: {reason}") from error
    (found,) = verify_onnx_program(program, kwargs=graph.example(ROWS))
    difference = min(found.max_abs_diff, found.max_rel_diff)
    if not difference <= TOLERANCE:
        raise StageFailed(
            f"{model.label}: the graph's log-densities differ from the flow's by "
            f"{difference:.2g}, expected at most {TOLERANCE:g}"
        )
    about = _about(model, graph)
    program.model.metadata_props["ebflow"] = json.dumps(about)
    with drafted(output) as draft:
        program.save(draft, external_data=False)
    shape = ", ".join(map(str, ("N", *graph.flow.event_shape)))
    takes = f"takes         {', '.join(graph.inputs)}: {about['dtype']} ({shape})"
    return f"{takes}\nchecked       {ROWS} samples: differs by {difference:.1g} of the log-density"


def _about(model: Model, graph: Graph) -> dict[str, Any]:
    """Returns the description of inputs and output that goes into the file."""
    columns = {"columns": model.columns, "context": model.context}
    return {
        "ebflow": __version__,
        "output": "log-density (nats)",
        "inputs": graph.inputs,
        "dtype": str(graph.flow.dtype).removeprefix("torch."),
        **{name: one.to_dict() for name, one in columns.items() if one is not None},
        "levels": model.arrays.get("levels"),
    }
