r"""The log-density of a flow as one graph of tensors, for programs that do not have ebflow.

A graph has the preprocessing, the layers and the base, log Z as a constant, and a free number of
rows. It checks nothing: where a flow would refuse a row, its log-density is NaN. Integers are
completed by noise that the caller gives, uniform on [0, 1): the mean log-density over draws of it
bounds the log-mass from below. A conditional flow takes a context for every row, categories as
one-hot columns.
"""

import torch
from torch import Tensor, nn

from ebflow.bijections.weighted import fixed_weights
from ebflow.flow import Flow

ROWS = 3
"""Of the example that is traced; the graph takes any number."""


class Graph(nn.Module):
    """Creates x ↦ log p(x), (x, noise) ↦ log p(x + noise) of data that are dequantized, or
    (x, context, …) ↦ log p(x | context).

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
        if context is not None:  # tells the tracer that there are as many as rows
            context = context.expand(x.shape[0], -1)
        return -self.flow(context).at(x).energy - self.log_normalizer


@torch.no_grad()
def export(graph: Graph) -> torch.export.ExportedProgram:
    """Returns the graph traced, with a free first dimension.

    Raises:
        RuntimeError: By PyTorch, if a layer decides by values of its input what it computes.
    """
    flow, rows = graph.flow, torch.export.Dim("rows")
    shapes = {name: flow.event_shape for name in graph.inputs}
    if "context" in shapes:
        shapes["context"] = (flow.context,)
    example = {name: torch.zeros(ROWS, *shape, dtype=flow.dtype) for name, shape in shapes.items()}
    return torch.export.export(graph, (), example, dynamic_shapes=dict.fromkeys(shapes, {0: rows}))
