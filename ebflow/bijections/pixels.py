r"""Exact probabilities of the levels of an image's elements, in reading order.

An element y in [k, k + 1) has level k of K. Given the pixels before it, and the channels before it
of its own pixel, level k has the probability :math:`p_k`, a softmax of a network of causal
convolutions. As in :mod:`~ebflow.bijections.categorical`, the latent is the standard normal
quantile of the probability up to y. So over N(0, I) the log-density is the sum of
:math:`\log p_k`: the log-probability of the discrete image, not a bound of it.

The density is constant in each cell, so its score is 0 there: only likelihoods train the layer.

The value is one pass of the network. The inverse computes every unit once as well, pixel by
pixel. Networks have few values for each element (``RANK``), and a matrix of K rows makes them
logits.

Sources: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016),
arXiv:1601.06759; PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood
and Other Modifications (Salimans, Karpathy, Chen, Kingma, 2017), arXiv:1701.05517. The second has
the convolutions whose kernels reach up and to the left.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from ..networks import FEATURES, started, waves, zeroed
from .base import Contextual
from .categorical import NORMALIZER, RANK, inverted, latents, of_levels, start

VALUES = 1 << 24  # Logits at a time, where no gradient is needed: 64 MiB
ALIGNED = 32  # Images in a part are a multiple of it, so that parts do not change the last bits
FIRST = 4  # Pixels that the first convolution reaches, up and to both sides
DILATIONS = (1, 2, 4)  # Pixels that those of blocks reach, in turn


class CausalConv2d(nn.Module):
    """A convolution of a pixel's own row up to it, and of rows above.

    Arguments:
        count: The number of rows above, of columns to the left, and of those to the right.
        dilation: The distance of neighbouring rows and columns.
        strict: True if a pixel does not see itself.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        count: int,
        *,
        dilation: int = 1,
        strict: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.reach, self.dilation = count * dilation, dilation
        mask = torch.ones(count + 1, 2 * count + 1)
        mask[count, count + (not strict) :] = 0
        self.mask = nn.Buffer(mask, persistent=False)
        bound = float(inputs * mask.sum()) ** -0.5
        weight = torch.empty(outputs, inputs, *mask.shape)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def masked(self) -> Tensor:
        """Returns the weight, 0 for pixels that are not seen."""
        return self.weight * self.mask

    def padded(self, x: Tensor) -> Tensor:
        """Returns an image (B, C, H, W) with zeros around it, as far as kernels reach."""
        return F.pad(x, (self.reach, self.reach, self.reach, 0))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.padded(x), self.masked(), self.bias, dilation=self.dilation)

    def window(self, i: int, j: int) -> tuple[slice, slice]:
        """Returns the rows and columns of a padded image that the pixel (i, j) sees."""
        ends = i + self.reach + 1, j + 2 * self.reach + 1
        return slice(i, ends[0], self.dilation), slice(j, ends[1], self.dilation)


def pixelwise(inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    """Returns a 1×1 convolution with random weights."""
    return started(skip_init(nn.Conv2d, inputs, outputs, 1), generator)


class Network(nn.Module):
    """Residual blocks of causal convolutions, with ``rank`` values for every element.

    Arguments:
        shape: The shape (C, H, W) of an image, whose elements the network sees by ``FEATURES``
            numbers each.
        hidden: The channels of the blocks; their causal convolutions have half as many.
        depth: The number of blocks.
    """

    def __init__(
        self,
        shape: Sequence[int],
        rank: int,
        *,
        hidden: int,
        depth: int,
        context: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels, *size = shape
        conv, seen = partial(CausalConv2d, generator=generator), channels * FEATURES
        self.place = nn.Parameter(torch.zeros(hidden, *size))
        self.context = None
        if context:
            self.context = started(skip_init(nn.Linear, context, hidden, bias=False), generator)
        narrow = max(1, hidden // 2)
        self.inner = nn.ModuleList([conv(seen, hidden, FIRST, strict=True)])
        dilations = islice(cycle(DILATIONS), depth)
        self.inner.extend(conv(narrow, narrow, 1, dilation=d) for d in dilations)
        self.enter = nn.ModuleList(pixelwise(hidden, narrow, generator) for _ in range(depth))
        last = (skip_init(nn.Conv2d, narrow, hidden, 1) for _ in range(depth))
        self.outer = nn.ModuleList(map(zeroed, last))
        self.own = nn.ModuleList(  # of the channels before one, of the same pixel
            pixelwise(k * FEATURES, hidden, generator) for k in range(1, channels)
        )
        last = (skip_init(nn.Conv2d, hidden, rank, 1) for _ in range(channels))
        self.leave = nn.ModuleList(map(zeroed, last))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns values with shape (B, C, rank, H, W) for features (B, C · FEATURES, H, W)."""
        h = self.inner[0](x) + self.offset(context)
        for enter, inner, outer in self.blocks:
            h = h + outer(F.silu(inner(F.silu(enter(F.silu(h))))))
        return torch.stack([self.values(h, x, k) for k in range(len(self.leave))], 1)

    @property
    def blocks(self) -> Iterator[Sequence[nn.Module]]:
        """The three convolutions of each block: 1×1, causal, and 1×1."""
        return zip(self.enter, self.inner[1:], self.outer, strict=True)

    def offset(self, context: Tensor | None) -> Tensor:
        """Returns what place and context of a pixel add, with shape (1 or B, hidden, H, W)."""
        if context is None:
            return self.place[None]
        return self.place + self.context(context)[:, :, None, None]

    def values(self, h: Tensor, x: Tensor, channel: int) -> Tensor:
        """Returns the values of a channel (B, rank, H, W), given the features of those before."""
        if channel:
            h = h + self.own[channel - 1](x[:, : channel * FEATURES])
        return self.leave[channel](F.silu(h))


class PixelCNN(Contextual):
    """Creates the layer that maps the levels of images to latents, element by element.

    The base has to be N(0, I), and only a ``Reshape`` may follow. Derivatives by y are 0.

    Arguments:
        shape: The shape (C, H, W) of an image.
        levels: The number K of levels.
        counts: The number of elements of each level, of which the start has the frequencies;
            None: equal ones.
        hidden: The channels of the network.
        depth: The number of residual blocks of the network.
        context: The number of elements of a context.
        generator: Source of the weights; None: seed 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        *,
        counts: Sequence[float] | None = None,
        hidden: int = 32,
        depth: int = 9,
        context: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(context)
        self.shape, self.levels, rank = tuple(shape), levels, min(levels, RANK)
        generator = generator or torch.Generator().manual_seed(0)
        self.network = Network(
            shape, rank, hidden=hidden, depth=depth, context=context, generator=generator
        )
        self.table = nn.Parameter(waves(levels, FEATURES))
        self.head = nn.Parameter(waves(levels, rank) * rank**-0.5)
        self.bias = nn.Parameter(start([levels], counts and [counts])[0])

    def log_probs(self, y: Tensor) -> Tensor:
        """Returns log p of all levels given the elements before, with shape (B, C H W, K)."""
        h = self.network(self._features(self._codes(y)), self.contexts(y)).movedim(2, -1)
        return self._logits(h.flatten(1, 3)).log_softmax(2)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the latents, and Σ log p − log φ(u)."""
        parts = [bound._forward(rows) for bound, rows in self._parts(x)]
        u, log_det = map(torch.cat, zip(*parts, strict=True))
        return u, log_det

    def inverse(self, y: Tensor) -> Tensor:
        """Returns levels plus their places in [0, 1); C H W dependent steps."""
        target = torch.special.ndtr(y.double())
        pixels, x = Pixels(self.network, self.contexts(y), y), torch.empty_like(y)
        for i, j in product(*map(range, y.shape[2:])):
            h = pixels.next(i, j)
            for k in range(y.shape[1]):
                logits = self._logits(self.network.values(h, pixels.own, k)[..., 0, 0])
                x[:, k, i, j] = inverted(logits, target[:, k, i, j, None])[:, 0].to(y)
                codes = self._codes(x[:, k : k + 1, i : i + 1, j : j + 1])
                pixels.own[:, k * FEATURES : (k + 1) * FEATURES] = self._features(codes)
        return x

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, y = self.log_probs(x), x.flatten(1)
        codes = self._codes(y)
        with torch.no_grad():
            u = latents(log_probs, codes, y)
        log_det = of_levels(log_probs, codes) + (0.5 * u * u + NORMALIZER)
        return u.view_as(x), log_det.sum(1)

    def _parts(self, x: Tensor) -> Iterator[tuple["PixelCNN", Tensor]]:
        """Yields images whose logits take a bounded memory, and the layer given their contexts.

        All images are one part if gradients are needed, or in a graph.
        """
        trained = x.requires_grad or any(p.requires_grad for p in self.parameters())
        recorded = torch.is_grad_enabled() and trained
        if recorded or torch.compiler.is_exporting() or not len(x):
            yield self, x
            return
        most, context = max(1, VALUES // (x[0].numel() * self.levels)), self.contexts(x)
        most -= most % ALIGNED if most > ALIGNED else 0
        for first in range(0, len(x), most):
            rows = slice(first, first + most)
            yield self if context is None else self.condition(context[rows]), x[rows]

    def _codes(self, y: Tensor) -> Tensor:
        """Returns the levels of elements, as integers."""
        return y.detach().long().clamp(0, self.levels - 1)

    def _features(self, codes: Tensor) -> Tensor:
        """Returns features (B, C · FEATURES, H, W) of levels (B, C, H, W)."""
        return F.embedding(codes, self.table).movedim(-1, 2).flatten(1, 2)

    def _logits(self, h: Tensor) -> Tensor:
        """Returns the logits (*, K) of values (*, rank)."""
        return F.linear(h, self.head, self.bias)


class Pixels:
    """A network evaluated pixel by pixel, each unit once.

    Arguments:
        context: The context of every image, with shape (B, C); None: there is none.
        like: Images with shape (B, C, H, W).

    Attributes:
        own: The features of the present pixel (B, C · FEATURES, 1, 1). ``next`` reads them before
            it moves to the next pixel.
    """

    def __init__(self, network: Network, context: Tensor | None, like: Tensor) -> None:
        self.network = network
        self.offset = network.offset(context)
        self.weights = [layer.masked().flatten(1) for layer in network.inner]
        widths = [layer.weight.shape[1] for layer in network.inner]
        self.images = [
            layer.padded(like.new_zeros(len(like), width, *like.shape[2:]))
            for layer, width in zip(network.inner, widths, strict=True)
        ]
        self.own = like.new_zeros(len(like), widths[0], 1, 1)
        self.last: tuple[int, int] | None = None

    def next(self, i: int, j: int) -> Tensor:
        """Returns the channels (B, hidden, 1, 1) of a pixel, given the pixels before."""
        if self.last is not None:
            self._set(0, *self.last, self.own[..., 0, 0])
        self.last = i, j
        h = (self._convolved(0, i, j) + self.offset[:, :, i, j])[:, :, None, None]
        for k, (enter, _, outer) in enumerate(self.network.blocks, 1):
            self._set(k, i, j, F.silu(enter(F.silu(h)))[..., 0, 0])
            h = h + outer(F.silu(self._convolved(k, i, j))[:, :, None, None])
        return h

    def _set(self, layer: int, i: int, j: int, values: Tensor) -> None:
        reach = self.network.inner[layer].reach
        self.images[layer][:, :, i + reach, j + reach] = values

    def _convolved(self, layer: int, i: int, j: int) -> Tensor:
        """Returns the convolution of a layer's input at one pixel, with shape (B, hidden)."""
        conv = self.network.inner[layer]
        seen = self.images[layer][:, :, *conv.window(i, j)]
        return F.linear(seen.flatten(1), self.weights[layer], conv.bias)
