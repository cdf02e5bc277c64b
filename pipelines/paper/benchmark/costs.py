r"""What a training step costs, and what this machine can do.

The unit is a GEMM of a batch with a dense layer, G = 2 B D² FLOP. A layer's forward is one, its
backward two (weight and input), and the first layer needs no input gradient. In a net of
convolutions each has a unit of its own, 2 B D C k² FLOP. ``tests`` compare the counts with those
of PyTorch's FLOP counter.
"""

import math
import time
from collections.abc import Callable

import torch

from ebflow.bijections import Convolution
from ebflow.flow import Flow

OBJECTIVE_COSTS: dict[str, Callable[[int, int], int]] = {
    "ml": lambda layers, slices: 3 * layers - 1,
    "lazy_ml": lambda layers, slices: 3 * layers - 1,
    "relative_ml": lambda layers, slices: 4 * layers - 1,
    "sml": lambda layers, slices: 2 * (3 * layers - 1) + layers,
    "dsm": lambda layers, slices: slices * (6 * layers - 1),
    "exact_sm": lambda layers, slices: 6 * layers - 1 + _exact_trace(layers, slices),
    "ssm": lambda layers, slices: 3 * (1 + 2 * slices) * layers - 4 * slices - 1,
    "ssm_vr": lambda layers, slices: 6 * layers + slices * (3 * layers - 1) - 1,
    "fd_ssm": lambda layers, slices: 9 * layers - 3,
    "taylor_sm": lambda layers, slices: 6 * layers - 1 + slices * (3 * layers - 1),
}
"""GEMMs of a step by objective, as functions of the number of dense layers and of slices K.

K counts random directions; for ``dsm``, points an example (2 if antithetic); for ``taylor_sm``,
energies beside that at the data (two a direction for ``two_sided``); for ``exact_sm`` of three or
more layers, dimensions.
"""

UNCOUNTED = ("exact_sm", "relative_ml", "sml")
"""What has no count for convolutions: D tangents, what is ``ml``, solutions in float64."""


def _exact_trace(layers: int, size: int) -> int:
    return 3 * (layers - 1) * (size if layers > 2 else 1)


def gemms(objective: str, depth: int, slices: int = 1) -> int:
    """Returns the GEMMs of 2 B D² FLOP of one step, forward and backward."""
    return OBJECTIVE_COSTS[objective](depth, slices)


def cubic(objective: str, depth: int) -> float:
    """Returns the units of D³ FLOP of one step, which do not depend on the batch.

    LU (2/3) and, for ``ml``, the inverse (2) of every W; for ``exact_sm``, products of weights.
    """
    if objective == "exact_sm":
        return {1: 0, 2: 8}.get(depth, 4)
    return {"ml": 2 / 3 + 2, "sml": 2 / 3}.get(objective, 0.0) * depth


def flops(objective: str, size: int, batch: int, depth: int, slices: int = 1) -> float:
    """Returns the FLOP of one step of a dense flow, element-wise work left out."""
    rows = 2 * batch * size**2 * gemms(objective, depth, slices)
    return rows + cubic(objective, depth) * size**3


def convolutional_flops(objective: str, flow: Flow, batch: int, slices: int = 1) -> float | None:
    """Returns the FLOP of one step of a flow of convolutions, element-wise work left out.

    They take the place of the GEMMs, layer by layer. ``ml`` adds, for zero padding, elimination
    of every layer by strips of rows (``bijections.convolution``); for masked kernels nothing.

    None for ``ml`` of circular kernels, whose log-determinants are Fourier transforms and small
    complex blocks, and for ``UNCOUNTED``.
    """
    layers = [layer for layer in flow.layers if isinstance(layer, Convolution)]
    circular = any(layer.padding == "circular" for layer in layers)
    if objective in UNCOUNTED or (objective == "ml" and circular):
        return None
    units = [2 * batch * _taps(layer) for layer in layers]
    first = gemms(objective, 0, slices)
    total = (gemms(objective, 1, slices) - first) * sum(units) + first * units[0]
    return total + (sum(map(_volume_flops, layers)) if objective == "ml" else 0)


def _taps(layer: Convolution) -> int:
    """Returns the multiplications of a convolution of one event, D C k²."""
    return math.prod(layer.event_shape) * layer.weight[0].numel()


def _volume_flops(layer: Convolution) -> float:
    """Returns the FLOP of log |det J| and its gradient, of n strips of m coordinates.

    The corner of J by a convolution of 2 m units, every S with its inverse (2 m³) and its
    log-determinant (2/3 m³, and 2 m³ for the gradient), and between strips two products and
    their gradients, and two for the gradient of an inverse.
    """
    if not layer.lazy:
        return 0.0
    (channels, height, width), side = layer.event_shape, layer.weight.shape[-1]
    rows = max(1, side // 2)
    m = rows * width * channels
    cut = [min(rows, height - row) * width * channels for row in range(0, height, rows)]
    corner = 16 * m**2 * channels * side**2
    between = sum(6 * n * m * (m + n) + 4 * m**3 for n in cut[1:])
    return corner + between + sum((2 + cubic("ml", 1)) * n**3 for n in cut)


def measured_peak(sizes: tuple[int, ...] = (512, 1024, 2048), seconds: float = 0.3) -> float:
    """Returns the best float32 matrix product of this machine in FLOP/s, over square sizes."""
    return max(_rate(size, seconds) for size in sizes)


def _rate(size: int, seconds: float) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    out, best, begin = torch.empty(size, size), 0.0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
