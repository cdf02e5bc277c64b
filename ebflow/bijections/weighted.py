r"""Linear layers whose Jacobian is a function of one weight.

Such a layer is :math:`y = J(W) x + b`. In some basis of events J is block-diagonal,
:math:`J \cong \operatorname{diag}(M_1, \dots, M_n)`. There

.. math:: \log |\det J| = \sum_i \log |\det M_i|, \qquad
    J^{-1} \cong \operatorname{diag}(M_1^{-1}, \dots, M_n^{-1}).

A dense matrix and a zero-padded convolution are one block. A circular convolution has one block of
C×C at every frequency, a 1×1 convolution the same block at every pixel. Score matching needs no
block. Evaluation factorizes them in float64 and caches the factors. A checksum of all bits, O(size
of W), shows if a weight has changed since then, by whatever means.

W may be parametrized. PyTorch computes a parametrization at every read, so a sweep reads it once.
``fixed_weights`` makes several sweeps share one read. ``spectral_norm`` has the same value until
the weights change. PyTorch's own changes W at every read during training, so its value is the same
for a whole sweep only inside ``fixed_weights``.
"""

__all__ = ["STRUCTURES", "Factors", "SpectralNorm", "Weighted", "fixed_weights", "spectral_norm"]

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .base import ConstantJacobian, ConstantLinearization, Linearization, at_least_float32, hold

STRUCTURES = ("full", "tril", "triu")

START = 15
"""Power iterations at the start of a spectral normalization."""

LARGE = 64
"""Number of rows from which the LU of a block takes longer than a call."""

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer types by their number of bytes."""


@contextmanager
def fixed_weights(module: nn.Module) -> Iterator[None]:
    """Reads every parametrized weight of ``module`` once; all reads inside get that value."""
    parametrized = [part for part in module.modules() if "parametrizations" in part._modules]
    if not parametrized:
        yield
        return
    with parametrize.cached():
        for part in parametrized:
            # Now, with gradients if they are on: the first read may be a sampler's, without.
            for name in part.parametrizations:
                getattr(part, name)
        yield


class SpectralNorm(nn.Module):
    """Creates W ↦ W / σ of a weight as a matrix (C, *), σ = u·W v near its largest singular value.

    During training, u and v advance by one power iteration when the weight has changed, not at
    every read. So the energy and the normalizer, computed one after the other, are those of one W.
    All of it is in the state.

    Source: Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama,
    Yoshida, 2018), arXiv:1802.05957.

    Arguments:
        weight: The weight at the start, for which u and v are iterated.
        generator: The source of the first u and v.
    """

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        for name, size in zip(("u", "v"), matrix.shape, strict=True):
            start = torch.randn(size, generator=generator, dtype=matrix.dtype)
            self.register_buffer(name, F.normalize(start.to(matrix.device), dim=0))
        self.register_buffer("last", checksum(weight))
        self._iterate(matrix, START)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns W / σ."""
        if self.training:
            self._follow(weight.detach())
        u, v = self.u.clone(), self.v.clone()  # a later iteration must not change this graph
        return weight / torch.dot(u, torch.mv(weight.flatten(1), v))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Returns the stored value after ``weight`` is assigned: itself."""
        return weight

    @torch.no_grad()
    def _follow(self, weight: Tensor) -> None:
        present = checksum(weight)
        if not torch.equal(self.last, present):
            self._iterate(weight.flatten(1), 1)
            self.last.copy_(present)

    def _iterate(self, matrix: Tensor, count: int) -> None:
        for _ in range(count):
            self.u.copy_(F.normalize(torch.mv(matrix, self.v), dim=0))
            self.v.copy_(F.normalize(torch.mv(matrix.mT, self.u), dim=0))


def spectral_norm(layer: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Divides ``layer.weight`` by its largest singular value from now on, and returns the layer.

    The power iteration starts from ``generator``, or from seed 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, generator))
    return layer


class Factors(Protocol):
    """J in factors, which give log-determinants and solutions."""

    def log_dets(self) -> Tensor:
        """Returns the log |det| of the blocks, with shape (*n,)."""

    def solve(self, columns: Tensor) -> Tensor:
        """Returns M⁻¹ z of the blocks for columns z, with shape (*n, m, R)."""


class BlockFactors:
    """Creates the LU of blocks with shape (*n, m, m); blocks with a gradient stay unfactorized.

    Arguments:
        blocks: The blocks M.
        structure: Their form, one of ``STRUCTURES``; triangles are their own factors.
    """

    def __init__(self, blocks: Tensor, structure: str) -> None:
        self.structure = structure
        plain = structure != "full" or (torch.is_grad_enabled() and blocks.requires_grad)
        self.parts = (blocks,) if plain else _apart(torch.linalg.lu_factor_ex, blocks)[:2]

    def log_dets(self) -> Tensor:
        """Returns the log |det| of every block."""
        if self.structure == "full" and len(self.parts) == 1:
            return _apart(torch.linalg.slogdet, *self.parts)[1]
        return self.parts[0].diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)

    def solve(self, columns: Tensor) -> Tensor:
        """Returns M⁻¹ z."""
        if len(self.parts) == 2:
            return torch.linalg.lu_solve(*self.parts, columns)
        if self.structure == "full":
            solve = partial(torch.linalg.solve_ex, check_errors=True)
            return _apart(solve, *self.parts, columns)[0]
        return torch.linalg.solve_triangular(*self.parts, columns, upper=self.structure == "triu")


def _apart(function: Callable[..., tuple[Tensor, ...]], *blocks: Tensor) -> tuple[Tensor, ...]:
    """Applies a function of matrices to blocks with shape (*n, m, ·).

    It takes large blocks one by one: PyTorch's LU of several large matrices by several threads is
    wrong (pytorch/pytorch#141358).
    """
    *n, size, _ = blocks[0].shape
    if not n or size < LARGE:
        return function(*blocks)
    results = map(function, *(block.flatten(0, -3) for block in blocks))
    return tuple(torch.stack(parts).unflatten(0, n) for parts in zip(*results, strict=True))


class Weighted(ConstantJacobian):
    """A layer y = J(W) x + b whose Jacobian is a function of one weight.

    Implementing one:

    * ``act`` and ``adjoint`` are J v and Jᵀ s;
    * ``blocks``, ``to_blocks`` and ``from_blocks`` are the block-diagonal form, and
      ``total`` sums over blocks that repeat;
    * if the log-determinant is cheap, override ``volume`` and unset ``lazy``.

    Arguments:
        event_shape: The shape of an event.
        weight: W.
        bias: b, or None.
        structure: The form of the blocks: ``full``, ``tril`` or ``triu``.
        trainable: Whether W and b are parameters; buffers otherwise.
    """

    lazy = True
    keeps: tuple[str, ...] = ("gradient", "weight")
    """The tensors of the layer that an anchor stores between refreshes: any of these two."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        *,
        structure: str = "full",
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if structure not in STRUCTURES:
            raise ValueError(f"structure: found {structure!r}, expected one of {STRUCTURES}")
        self.event_shape, self.structure = tuple(event_shape), structure
        hold(self, trainable=trainable, weight=weight, bias=bias)
        self._cache: tuple[Tensor, Factors, Tensor] | None = None

    def _apply(self, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Drops the cache if the type or the device changes."""
        self._cache = None
        return super()._apply(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the cache out of copies and pickles."""
        return {**super().__getstate__(), "_cache": None}

    def extra_repr(self) -> str:
        """Names the event shape and the structure."""
        return f"{self.event_shape}, structure={self.structure}, bias={self.bias is not None}"

    @abstractmethod
    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns J v + b for an effective weight; any leading dimensions."""

    @abstractmethod
    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns Jᵀ s for an effective weight; any leading dimensions."""

    @abstractmethod
    def blocks(self, weight: Tensor) -> Tensor:
        """Returns the blocks M with shape (*n, m, m), differentiable."""

    @abstractmethod
    def to_blocks(self, z: Tensor) -> Tensor:
        """Returns the coordinates of events ``z`` as columns, with shape (*n, m, R)."""

    @abstractmethod
    def from_blocks(self, columns: Tensor, shape: torch.Size) -> Tensor:
        """Returns the events of ``shape`` with these coordinates."""

    def total(self, log_dets: Tensor) -> Tensor:
        """Sums the blocks' log-determinants, with shape (*n,), over the event."""
        return log_dets.sum()

    def effective_weight(self) -> Tensor:
        """Returns the weight of which J is a function: masked, or composed."""
        return self.weight

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns the trainable parameters of W; the offset does not change volumes."""
        return [p for p in self.parameters() if p.requires_grad and p is not self.bias]

    def forward(self, x: Tensor) -> Tensor:
        """Returns J x + b."""
        return self.act(x, self.effective_weight(), self.bias)

    def linear(self, v: Tensor) -> Tensor:
        """Returns J v."""
        return self.act(v, self.effective_weight())

    def transpose(self, s: Tensor) -> Tensor:
        """Returns Jᵀ s."""
        return self.adjoint(s, self.effective_weight())

    def linearize(self, x: Tensor, *, training: bool = False) -> Linearization:
        """Returns this layer at ``x``, with W read once."""
        return self._linearized(x, self.effective_weight())

    def _linearized(self, x: Tensor, weight: Tensor) -> Linearization:
        maps = (partial(f, weight=weight) for f in (self.act, self.adjoint))
        return ConstantLinearization(self.act(x, weight, self.bias), *maps)

    @property
    def offset(self) -> Tensor:
        """The bias, shaped to be added to events."""
        return self.bias.view(-1, *[1] * (len(self.event_shape) - 1))

    def volume(self, weight: Tensor) -> Tensor:
        """Returns log |det J| for an effective weight, differentiable."""
        log_dets = self.factorize(at_least_float32(weight)).log_dets()
        return self.total(log_dets).to(weight.dtype)

    def factorize(self, weight: Tensor) -> Factors:
        """Returns J in factors for an effective weight, differentiable."""
        return BlockFactors(self.blocks(weight), self.structure)

    def log_det(self) -> Tensor:
        """Returns log |det J|, from the cache unless it is cheap or a gradient is needed."""
        weight = self.effective_weight()
        if not self.lazy or (torch.is_grad_enabled() and weight.requires_grad):
            return self.volume(weight)
        return self._factorized(weight)[1].to(weight.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves J x + b = y block by block, by cached factors unless a gradient is needed."""
        z, weight = y if self.bias is None else y - self.offset, self.effective_weight()
        if torch.is_grad_enabled() and (z.requires_grad or weight.requires_grad):
            z, factors = at_least_float32(z), self.factorize(at_least_float32(weight))
        else:
            z, factors = z.double(), self._factorized(weight)[0]
        return self.from_blocks(factors.solve(self.to_blocks(z)), z.shape).to(y.dtype)

    def solver(self, kept: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """Returns r ↦ J₀⁻¹ r for the stored weight, whose blocks it factorizes."""
        factors = self.factorize(kept["weight"])
        return lambda r: self.from_blocks(factors.solve(self.to_blocks(r)), r.shape)

    @torch.no_grad()
    def _factorized(self, weight: Tensor) -> tuple[Factors, Tensor]:
        """Returns J in factors and log |det J|, cached until the weights change.

        Several threads may call it at once: the cache is always replaced as one tuple.
        """
        tensors = [t for t in (*self.parameters(), *self.buffers()) if t is not self.bias]
        present, cache = torch.stack([checksum(t) for t in tensors]), self._cache
        if cache is None or not torch.equal(cache[0], present):
            factors = self.factorize(weight.double())
            cache = self._cache = present, factors, self.total(factors.log_dets())
        return cache[1:]


def checksum(t: Tensor) -> Tensor:
    """Returns two 64-bit sums of the bits of ``t``, with shape (2,).

    One counts rows, the other columns by odd multiples, so that exchanged entries change them.
    """
    matrix = t.detach().reshape(len(t) if t.ndim > 1 else 1, -1)
    bits = matrix.view(INTEGERS[t.element_size()])
    sums = bits.sum(1), bits.sum(0)
    return torch.stack([(s * torch.arange(1, 2 * len(s), 2, device=s.device)).sum() for s in sums])
