r"""Layers that transform every element by parameters from the elements before it.

.. math:: y_i = f(x_i; h_i(x_1, \dots, x_{i-1}, c)), \qquad
    \psi(x) = \sum_i \log \partial_x f(x_i; h_i),

with one masked network h of all elements, so that the Jacobian is triangular. c is a context, if
there is one. Autograd takes the derivatives of h.

Each hidden unit of h has a *degree* m: it sees c and the first m elements, and the elements after
these see it. All degrees have equally many units. Units are sorted by degree, so masked weights
are triangular blocks. The value is one pass of h. The inverse computes the units of degree i when
the first i elements are known. So it computes each unit once as well, in D dependent steps.

Sources: MADE: Masked Autoencoder for Distribution Estimation (Germain, Gregor, Murray, Larochelle,
2015), arXiv:1502.03509; Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou,
Murray, 2017), arXiv:1705.07057; Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios, 2019),
arXiv:1906.04032, the source of the residual blocks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from ..networks import FEATURES, Levels, started
from .base import Contextual
from .univariate import Univariate

# Bound of an element as a conditioner sees it, so that the conditioner's values are finite.
REACH = 1e4


class Masked(nn.Module):
    """A matrix and an offset between units of sorted degrees: a unit sees no higher degree.

    Weights start uniform in ±1/√(the number of visible inputs).

    Arguments:
        inputs, outputs: Their degrees.
        context: The number of elements of a context, which outputs see as well.
        generator: Source of the weights; None: they are 0.
    """

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        *,
        context: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        mask = (outputs[:, None] >= inputs).to(torch.get_default_dtype())
        self.mask = nn.Buffer(mask, persistent=False)
        self.weight = _parameter(torch.zeros_like(mask))
        self.bias = _parameter(torch.zeros(len(outputs)))
        if generator is not None:
            bound = (mask.sum(1, keepdim=True) + context).clamp(min=1).rsqrt()
            for start, scale in ((self.weight.data, bound), (self.bias.data, bound.squeeze(1))):
                nn.init.uniform_(start, -1, 1, generator=generator).mul_(scale)

    def masked(self) -> Tensor:
        """Returns the weight, 0 where an output does not see an input."""
        return self.weight * self.mask

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """Returns W x + b for columns x; ``offset`` replaces b."""
        return _product(self.bias.unsqueeze(1) if offset is None else offset, self.masked(), x)


def _product(offset: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """Returns W x + b. A column has the same bits whatever the number of columns, from 12 on."""
    if x.dtype == torch.float64:  # which has this property for rows only
        return torch.addmm(offset.mT, x.mT, weight.mT).mT
    return torch.addmm(offset, weight, x)


def _parameter(start: Tensor) -> nn.Parameter | nn.Buffer:
    """Returns a parameter; a buffer if it is empty, which no optimizer needs to see."""
    return nn.Parameter(start) if start.numel() else nn.Buffer(start, persistent=False)


class Conditioner(nn.Module):
    """A masked network h of residual blocks, with ``count`` values for every element.

    Values are 0 at the start. The first layer and every block see all of the context. Units are
    rows of matrices, and rows of data are columns: loops over many rows are the fastest.

    Arguments are those of ``Autoregressive``, and ``features``, the numbers by which the network
    sees an element. A block has two hidden layers. Without a context one element has only
    constants.
    """

    def __init__(
        self,
        size: int,
        count: int,
        *,
        hidden: int,
        blocks: int,
        context: int,
        generator: torch.Generator,
        features: int = 1,
    ) -> None:
        super().__init__()
        self.size, self.count, least = size, count, 0 if context else 1
        self.features = features
        hidden = hidden if least < size else 0
        elements = torch.arange(size)
        units = least + torch.arange(hidden) * (size - least) // max(hidden, 1)
        self.starts = [int((units < i).sum()) for i in range(size + 1)]
        new = {"context": context, "generator": generator}
        self.enter = Masked(elements[1:].repeat_interleave(features), units, **new)
        pairs = [(Masked(units, units, **new), Masked(units, units)) for _ in range(blocks)]
        self.blocks = nn.ModuleList(layer for pair in pairs for layer in pair if hidden)
        self.leave = Masked(units, elements.repeat_interleave(count))
        width, self.context = hidden * (1 + blocks), None
        if context:
            linear = skip_init(nn.Linear, context, width, bias=False)
            self.context = started(linear, generator)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns h with shape (B, D, count), for ``x`` of (B, D · features), and a context."""
        first, *offsets = self.offsets(context)
        h = self.enter(x[:, : (self.size - 1) * self.features].mT.clamp(-REACH, REACH), first)
        for inner, outer, offset in zip(self.blocks[::2], self.blocks[1::2], offsets, strict=True):
            h = h + outer(F.silu(inner(F.silu(h), offset)))
        return self.leave(h).mT.unflatten(1, (self.size, self.count))

    def offsets(self, context: Tensor | None) -> list[Tensor]:
        """Returns the offsets of the first layer and of each block: biases, and the context.

        They have shape (units, 1), or (units, B) with a context.
        """
        biases = [layer.bias.unsqueeze(1) for layer in (self.enter, *self.blocks[::2])]
        if self.context is None:
            return biases
        pairs = zip(biases, self.context.weight.chunk(len(biases)), strict=True)
        return [_product(bias, weight, context.mT) for bias, weight in pairs]


class Autoregressive(Contextual):
    """Creates an autoregressive layer, the identity at the start.

    Arguments:
        size: The number D of elements that it transforms. Categories follow them, if there are
            any: they stay as they are, and h sees their levels as it sees the context.
        transform: f, as of a ``Coupling``.
        hidden: The width of h; None: 8 D, at least 64, or 128 with a context, and at most 512.
        blocks: The number of residual blocks of h.
        context: The number C of elements of a context.
        categories: The number K of levels of each category.
        rows: The number of training rows, for the start.
        generator: Source of the weights; None: seed 0.
    """

    def __init__(
        self,
        size: int,
        transform: Univariate,
        *,
        hidden: int | None = None,
        blocks: int = 1,
        context: int = 0,
        categories: Sequence[int] = (),
        rows: float = math.inf,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(context)
        self.size, self.transform = size, transform
        generator = generator or torch.Generator().manual_seed(0)
        hidden = hidden or min(max(128 if context else 64, 8 * size), 512)
        seen = context + FEATURES * len(categories)
        network = {"hidden": hidden, "blocks": blocks, "context": seen, "generator": generator}
        self.conditioner = Conditioner(size, transform.count, **network)
        self.levels = Levels(categories, rows) if categories else None

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and Σ log ∂f/∂x; one evaluation of h."""
        x, categories = x.tensor_split([self.size], 1)
        h = self._parameters_of_f(x, categories)
        y, log_slope = self.transform.forward_and_log_slope(x.mT.contiguous().mT, h)
        y = y if self.levels is None else torch.cat([y, categories], 1)
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x; one evaluation of h, in D steps."""
        y, categories = y.tensor_split([self.size], 1)
        if self.size == 1:
            x = self.transform.inverse(y, self._parameters_of_f(y, categories))
            return torch.cat([x, categories], 1)
        steps, x = Steps(self.conditioner, self._context(y, categories), y), [y[:, :0]]
        for element in y.split(1, 1):
            x.append(self.transform.inverse(element, steps.next(x[-1])))
        return torch.cat([*x, categories], 1)

    def _parameters_of_f(self, x: Tensor, categories: Tensor) -> Tensor:
        if self.size > 1 or self.rows is None or self.levels is not None:
            return self.conditioner(x, self._context(x, categories))
        points = self.rows.new_empty(len(self.rows), 1)  # h sees none of one element
        h = self.conditioner(points, self.rows)
        return h.repeat(len(x) // max(len(h), 1), 1, 1)

    def _context(self, x: Tensor, categories: Tensor) -> Tensor | None:
        """Returns the context of every row, with the levels of its categories."""
        context = self.contexts(x) if self.context else None
        if self.levels is None:
            return context
        levels = self.levels(categories)
        return levels if context is None else torch.cat([context, levels], 1)


class Steps:
    """A conditioner evaluated element by element, each hidden unit once.

    Arguments:
        context: The context of every row, with shape (B, C).
        like: A tensor with one row for each row of h.
    """

    def __init__(self, conditioner: Conditioner, context: Tensor | None, like: Tensor) -> None:
        self.conditioner, self.offsets = conditioner, conditioner.offsets(context)
        self.weights = [
            layer.masked() for layer in (conditioner.enter, *conditioner.blocks, conditioner.leave)
        ]
        self.seen = like[:, :0].mT
        self.units = [self.seen] * (len(conditioner.blocks) + 1)

    def next(self, x: Tensor) -> Tensor:
        """Returns h, with shape (B, 1, count), of the element after ``x``.

        ``x`` has shape (B, features); (B, 0) before the first element.
        """
        conditioner = self.conditioner
        self.seen = torch.cat([self.seen, x.mT.clamp(-REACH, REACH)])
        i = len(self.seen) // conditioner.features
        first, last = conditioner.starts[i : i + 2]
        if first < last:
            self._extend(slice(first, last))
        rows = slice(i * conditioner.count, (i + 1) * conditioner.count)
        h = _rows(conditioner.leave.bias.unsqueeze(1), self.units[-1], self.weights[-1], rows)
        return h.mT.unsqueeze(1)

    def _extend(self, new: slice) -> None:
        """Computes the units that see all elements so far, of every layer."""
        enter, *inner = self.weights[:-1]
        h = _rows(self.offsets[0], self.seen, enter, new)
        for k, offset in enumerate(self.offsets[1:]):
            seen = self._append(2 * k, F.silu(h))
            seen = self._append(2 * k + 1, F.silu(_rows(offset, seen, inner[2 * k], new)))
            bias = self.conditioner.blocks[2 * k + 1].bias.unsqueeze(1)
            h = h + _rows(bias, seen, inner[2 * k + 1], new)
        self._append(-1, h)

    def _append(self, layer: int, new: Tensor) -> Tensor:
        self.units[layer] = torch.cat([self.units[layer], new])
        return self.units[layer]


def _rows(offset: Tensor, x: Tensor, weight: Tensor, rows: slice) -> Tensor:
    """Returns some rows of W x + b, for the leading elements of x; all with shape (units, B)."""
    return torch.addmm(offset[rows], weight[rows, : len(x)], x)
