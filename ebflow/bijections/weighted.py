r"""Linear layers whose Jacobian is a function of one weight.

Such a layer is :math:`y = J(W) x + b`. In some basis of events J consists of n equal blocks M:

.. math:: \log |\det J| = n \log |\det M|, \qquad J^{-1} \cong I_n \otimes M^{-1}.

A dense matrix and a zero-padded convolution are one block; a 1×1 convolution has the same block at
every pixel. Score matching needs no block. Evaluation factorizes it in float64 and caches the
factors, with the weight that they belong to.

W may be parametrized. PyTorch computes a parametrization at every read, and its spectral
normalization changes W at every read during training, if not inside ``fixed_weights``.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .base import ConstantJacobian, ConstantLinearization, Linearization, at_least_float32

LOCK = Lock()


@contextmanager
def fixed_weights(module: nn.Module) -> Iterator[None]:
    """Reads every parametrized weight of ``module`` once; all reads of this thread get that value.

    Another thread may need gradients: ``parametrize.cached`` would be shared by all threads.
    """
    parametrized = filter(parametrize.is_parametrized, module.modules())
    weights = [weight for part in parametrized for weight in part.parametrizations.values()]
    fixed = []
    try:
        for weight in weights:
            if get_ident() not in getattr(weight.forward, "values", {}):
                # Now, with gradients if they are on: the first read may be a sampler's, without.
                value = weight()
                with LOCK:
                    vars(weight).setdefault("forward", _Fixed(weight)).values[get_ident()] = value
                fixed.append(weight)
        yield
    finally:
        for weight in fixed:
            with LOCK:
                del weight.forward.values[get_ident()]
                if not weight.forward.values:
                    del vars(weight)["forward"]


class _Fixed:
    """A parametrized weight with a value for each thread that has fixed it."""

    def __init__(self, weight: nn.Module) -> None:
        self.weight, self.values = weight, dict[int, Tensor]()

    def __call__(self) -> Tensor:
        value = self.values.get(get_ident())
        return type(self.weight).forward(self.weight) if value is None else value


class LU:
    """The LU of a matrix M, which stays unfactorized if it needs a gradient."""

    def __init__(self, matrix: Tensor) -> None:
        differentiable = torch.is_grad_enabled() and matrix.requires_grad
        self.parts = (matrix,) if differentiable else torch.linalg.lu_factor_ex(matrix)[:2]

    def log_det(self) -> Tensor:
        """Returns log |det M|."""
        if len(self.parts) == 1:
            return torch.linalg.slogdet(*self.parts)[1]
        return self.parts[0].diagonal().abs().log().sum()

    def solve(self, columns: Tensor) -> Tensor:
        """Returns M⁻¹ z for columns z, with shape (m, R)."""
        if len(self.parts) == 2:
            return torch.linalg.lu_solve(*self.parts, columns)
        return torch.linalg.solve_ex(*self.parts, columns, check_errors=True)[0]


class Weighted(ConstantJacobian):
    """A layer y = J(W) x + b whose Jacobian is a function of one weight.

    Implementing one: ``act`` and ``adjoint`` are J v and Jᵀ s; ``block``, ``to_columns`` and
    ``from_columns`` are the block M and the basis, and ``copies`` is the number n of blocks.
    W and b (None: there is none) are parameters if ``trainable``, buffers otherwise.
    """

    copies = 1

    def __init__(
        self,
        event_shape: tuple[int, ...],
        weight: Tensor,
        bias: Tensor | None,
        *,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        hold = nn.Parameter if trainable else nn.Buffer
        self.weight, self.bias = hold(weight.clone()), None if bias is None else hold(bias.clone())
        self._cache: tuple[Tensor, LU, Tensor] | None = None

    def _apply(self, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Drops the cache if the type or the device changes."""
        self._cache = None
        return super()._apply(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the cache out of copies and pickles."""
        return {**super().__getstate__(), "_cache": None}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, bias={self.bias is not None}"

    @abstractmethod
    def act(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns J v + b for a value of the weight; any leading dimensions."""

    @abstractmethod
    def adjoint(self, s: Tensor, weight: Tensor) -> Tensor:
        """Returns Jᵀ s for a value of the weight; any leading dimensions."""

    @abstractmethod
    def block(self, weight: Tensor) -> Tensor:
        """Returns M with shape (m, m), differentiable."""

    @abstractmethod
    def to_columns(self, z: Tensor) -> Tensor:
        """Returns the coordinates of events ``z``, with shape (m, R)."""

    @abstractmethod
    def from_columns(self, columns: Tensor, shape: torch.Size) -> Tensor:
        """Returns the events of ``shape`` with these coordinates."""

    def volume_parameters(self) -> list[nn.Parameter]:
        """Returns the trainable parameters of W; the offset does not change volumes."""
        return [p for p in self.parameters() if p.requires_grad and p is not self.bias]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x, self.weight, self.bias)

    def linear(self, v: Tensor) -> Tensor:
        return self.act(v, self.weight)

    def transpose(self, s: Tensor) -> Tensor:
        return self.adjoint(s, self.weight)

    def linearize(self, x: Tensor) -> Linearization:
        weight = self.weight  # read once
        maps = (partial(f, weight=weight) for f in (self.act, self.adjoint))
        return ConstantLinearization(self.act(x, weight, self.bias), *maps)

    @property
    def offset(self) -> Tensor:
        """The bias, shaped to be added to events."""
        return self.bias.view(-1, *[1] * (len(self.event_shape) - 1))

    def volume(self, weight: Tensor) -> Tensor:
        """Returns log |det J| for a value of the weight, differentiable."""
        log_det = self.factorize(at_least_float32(weight)).log_det()
        return (self.copies * log_det).to(weight.dtype)

    def factorize(self, weight: Tensor) -> LU:
        """Returns the block in factors for a value of the weight, differentiable."""
        return LU(self.block(weight))

    def log_det(self) -> Tensor:
        """Returns log |det J|, from the cache unless a gradient is needed."""
        weight = self.weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return self.volume(weight)
        return self._factorized(weight)[1].to(weight.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """Solves J x + b = y, by cached factors unless a gradient is needed."""
        z, weight = y if self.bias is None else y - self.offset, self.weight
        if torch.is_grad_enabled() and (z.requires_grad or weight.requires_grad):
            z, factors = at_least_float32(z), self.factorize(at_least_float32(weight))
        else:
            z, factors = z.double(), self._factorized(weight)[0]
        return self.from_columns(factors.solve(self.to_columns(z)), z.shape).to(y.dtype)

    def solver(self, gradient: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """Returns r ↦ J₀⁻¹ r for a weight, and the gradient of log |det J₀| by it."""
        factors = self.factorize(weight)
        return lambda r: self.from_columns(factors.solve(self.to_columns(r)), r.shape)

    @torch.no_grad()
    def _factorized(self, weight: Tensor) -> tuple[LU, Tensor]:
        """Returns the block in factors and log |det J|, cached until the weight changes."""
        # Several threads may call it at once: the cache is always replaced as one tuple.
        cache = self._cache
        if cache is None or not torch.equal(cache[0], weight):
            factors = self.factorize(weight.double())
            cache = self._cache = weight.clone(), factors, self.copies * factors.log_det()
        return cache[1:]
