r"""The log-density of a flow as one graph of tensors, for programs that do not have ebflow.

A graph has the preprocessing, the layers and the base, log Z as a constant, and a free number of
rows. It checks nothing: where a flow would refuse a row, its log-density is NaN. Integers are
completed by noise that the caller gives, uniform on [0, 1): the mean log-density over draws of it
bounds the log-mass from below.
"""

__all__ = ["Graph", "export"]

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .bijections import Dequantise, DequantiseColumns
from .bijections.weighted import fixed_weights
from .errors import BadInput
from .flow import Flow

ROWS = 3
"""Of the example that is traced; the graph takes any number."""


class Graph(nn.Module):
    """Creates x ↦ log p(x), or (x, noise) ↦ log p(x + noise) of data that are dequantised.

    Arguments:
        flow: The flow; put in evaluation mode, its parameters frozen.

    Raises:
        BadInput: If the flow has a context.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        if flow.context:
            raise BadInput("export: found a conditional flow, expected one without a context")
        self.flow = flow.eval().requires_grad_(False)
        with fixed_weights(flow):
            self.log_normalizer = nn.Buffer(flow.log_normalizer().detach().clone())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, each with shape (N, *event), in the flow's type."""
        first = next(iter(self.flow.layers), None)
        if isinstance(first, DequantiseColumns):
            noisy = bool((first.steps > 0).any())
        else:
            noisy = isinstance(first, Dequantise)
        return ("x", "noise") if noisy else ("x",)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Returns log p in nats with shape (N,)."""
        if noise is not None:
            x = self.flow.layers[0].completed(x, self.flow.like, noise)
        return -self.flow().at(x).energy - self.log_normalizer


@torch.no_grad()
def export(graph: Graph) -> torch.export.ExportedProgram:
    """Returns the graph traced, with a free first dimension.

    Raises:
        RuntimeError: By PyTorch, if a layer decides by values of its input what it computes.
    """
    rows = torch.export.Dim("rows")
    example = dict(_example(graph))
    return torch.export.export(
        graph, (), example, dynamic_shapes={name: {0: rows} for name in example}
    )


def _example(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    for name in graph.inputs:
        yield name, graph.flow.like.new_zeros(ROWS, *graph.flow.event_shape)
