r"""Categories as categories: exact probabilities of levels, within a flow.

The last m elements of an event are categories: an element y in [k, k + 1) has level k of K. Given
the levels before it, level k has the probability :math:`p_k`, a softmax of values of a masked
network. With the standard normal quantile function :math:`\Phi^{-1}`,

.. math:: u = \Phi^{-1}(p_0 + \dots + p_{k-1} + (y - k)\, p_k), \qquad
    \log \frac{\partial u}{\partial y} = \log p_k - \log \varphi(u),

so over a standard normal base the log-density is :math:`\log p_k`, whatever the place of y in its
cell. No sample lies outside [0, K), and no sum over levels goes there. To score values that no
training row has, the density is at most that of half a row there, and falls by half from cell to
cell.

The network has few values for each category (``RANK``), and a matrix of K rows makes them
logits. The cost of a row is O(m K RANK) beside the network's.

Source: MADE (Germain et al., 2015), arXiv:1502.03509; Entity Embeddings of Categorical Variables
(Guo, Berkhahn, 2016), arXiv:1604.06737.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..networks import FEATURES, Levels, waves
from .autoregressive import Conditioner, Steps
from .base import Contextual

RANK = 32  # Most values of a category from which its logits are computed
MANY = 1_000_000  # Most rows by which a level that none of them has gets its density
PRIOR = 0.5  # Rows that every level has at the start of a training, beside those of the data
EDGE = 1e-9  # Least distance of a latent's probability from 0 and 1: latents stay within ±6
NORMALIZER = 0.5 * math.log(2 * math.pi)


class Categorical(Contextual):
    """Creates the layer that maps the last m elements of an event to latents, level by level.

    Other elements stay as they are. The base has to be N(0, I). Derivatives by y are 0.

    Arguments:
        sizes: The number K of levels of each of m categories.
        counts: The rows of each level, of which the start has the frequencies; None: equal ones.
        hidden: The width of the network; None: 8 m, at least 64 and at most 512.
        blocks: The number of residual blocks of the network.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        counts: Sequence[Sequence[float]] | None = None,
        hidden: int | None = None,
        blocks: int = 1,
        context: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(context)
        self.sizes, self.count, most = list(sizes), len(sizes), max(sizes)
        generator = generator or torch.Generator().manual_seed(0)
        rank = min(most, RANK)
        self.conditioner = Conditioner(
            self.count, rank, hidden=hidden or min(max(64, 8 * self.count), 512), blocks=blocks,
            context=context, features=FEATURES, generator=generator,
        )  # fmt: skip
        rows = sum(counts[0]) if counts else math.inf
        self.levels = Levels(sizes, rows)
        head = torch.zeros(self.count, most, rank)
        for i, size in enumerate(sizes):
            head[i, :size] = waves(size, rank) * rank**-0.5
        self.head = nn.Parameter(head.flatten(0, 1))
        padding = torch.arange(most) >= torch.tensor(self.sizes)[:, None]
        self.padding = nn.Buffer(padding, persistent=False)
        self.bias = nn.Parameter(start(self.sizes, counts))
        self.unseen = nn.Buffer(torch.tensor(math.log(PRIOR / min(rows, MANY))))

    def log_probs(self, y: Tensor) -> Tensor:
        """Returns log p of all levels given those before, with shape (B, m, K), −∞ beyond a K."""
        h = self.conditioner(self.levels(y), self.contexts(y))
        logits = (h.movedim(1, 0) @ self.head.unflatten(0, self.bias.shape).mT).movedim(0, 1)
        return (logits + self.bias).masked_fill(self.padding, -torch.inf).log_softmax(2)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the latents, and Σ log p − log φ(u)."""
        real, y = x.tensor_split([x.shape[1] - self.count], 1)
        log_probs, codes = self.log_probs(y), self.levels.codes(y)
        with torch.no_grad():
            u = latents(log_probs, codes, y)
        log_p = self._with_unseen(of_levels(log_probs, codes), codes, y)
        return torch.cat([real, u], 1), (log_p + (0.5 * u * u + NORMALIZER)).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns levels plus their places in [0, 1); m dependent steps."""
        real, u = y.tensor_split([y.shape[1] - self.count], 1)
        target = torch.special.ndtr(u.double())
        levels = self._in_order(u, lambda i, logits: inverted(logits, target[:, i : i + 1]).to(u))
        return torch.cat([real, levels], 1)

    def log_levels(self, y: Tensor) -> Tensor:
        """Returns log p of the levels y given those before, with shape (B, m), as ``log_det``."""
        h, codes = self.conditioner(self.levels(y), self.contexts(y)), self.levels.codes(y)
        head, log_p = self.head.unflatten(0, self.bias.shape), []
        for i, size in enumerate(self.sizes):  # no level of other categories' numbers
            logits = h[:, i] @ head[i, :size].mT + self.bias[i, :size]
            log_p.append(logits.gather(1, codes[:, i : i + 1])[:, 0] - logits.logsumexp(1))
        return self._with_unseen(torch.stack(log_p, 1), codes, y)

    def _with_unseen(self, log_p: Tensor, codes: Tensor, y: Tensor) -> Tensor:
        """Returns log p of y (B, m) by that of the nearest levels: less beyond all levels."""
        beyond = (y.detach().floor() - codes).abs()
        unseen = log_p.minimum(self.unseen) - math.log(2) * beyond
        return torch.where(beyond > 0, unseen, log_p)

    def completed(self, y: Tensor, missing: Tensor, target: Tensor) -> Tensor:
        """Returns levels plus places in [0, 1), the ``missing`` ones sampled in order.

        ``target`` is the probability up to the sampled place in its cell; all have shape (B, m).
        """

        def choose(i: int, logits: Tensor) -> Tensor:
            one = slice(i, i + 1)
            if not missing[:, one].any():
                return y[:, one]
            place = inverted(logits, target[:, one]).to(y)
            return torch.where(missing[:, one], place, y[:, one])

        return self._in_order(y, choose)

    def _in_order(self, like: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Returns levels (B, m) that are chosen by their numbers and logits (B, K), in order."""
        steps, seen, found = Steps(self.conditioner, self.contexts(like), like), like[:, :0], []
        head = self.head.unflatten(0, self.bias.shape)
        for i, size in enumerate(self.sizes):
            logits = steps.next(seen)[:, 0] @ head[i, :size].mT + self.bias[i, :size]
            found.append(choose(i, logits))
            seen = self.levels(found[-1], i)
        return torch.cat(found, 1)


def start(sizes: Sequence[int], counts: Sequence[Sequence[float]] | None) -> Tensor:
    """Returns the logarithms of smoothed frequencies, with shape (m, K)."""
    bias = torch.zeros(len(sizes), max(sizes))
    for row, count in zip(bias, counts or (), strict=counts is not None):
        smooth = torch.tensor(count, dtype=torch.float64) + PRIOR
        row[: len(count)] = (smooth / smooth.sum()).log()
    return bias


def of_levels(values: Tensor, codes: Tensor) -> Tensor:
    """Returns those of values (B, m, K) that belong to levels (B, m)."""
    return values.gather(2, codes.unsqueeze(2)).squeeze(2)


def latents(log_probs: Tensor, codes: Tensor, y: Tensor) -> Tensor:
    """Returns u of places y in the cells of levels."""
    if torch.compiler.is_exporting():  # any u gives the same density, and graphs have no quantile
        return torch.zeros_like(y)
    p = log_probs.exp()
    below = torch.where(torch.arange(p.shape[2], device=p.device) < codes.unsqueeze(2), p, 0.0)
    place = (below.sum(2) + (y - codes).clamp(0, 1) * of_levels(p, codes)).double()
    return torch.special.ndtri(place.clamp(EDGE, 1 - EDGE)).to(y)


def inverted(logits: Tensor, target: Tensor) -> Tensor:
    """Returns level and place (B, 1) at which the probabilities sum to ``target``."""
    p = logits.double().softmax(1)
    ends = p.cumsum(1)
    k = torch.searchsorted(ends[:, :-1].contiguous(), target.contiguous(), right=True)
    own, end = p.gather(1, k), ends.gather(1, k)
    return k + ((target - end) / own.clamp(min=EDGE) + 1).clamp(0, 1 - 1e-4)
