r"""A normalizing flow, read as an energy and a normaliser.

Layers :math:`f_1 \dots f_L` carry data :math:`x` to the latent :math:`u`. With
:math:`\psi_i = \log |\det J_i|`, and :math:`\mathcal{C}` the layers whose Jacobian does not depend
on the input,

.. math::
    \log p(x) = \underbrace{\log \mathcal{N}(u; 0, I)
        + \sum_{i \notin \mathcal{C}} \psi_i(x_{i-1})}_{-E(x)}
        + \underbrace{\sum_{i \in \mathcal{C}} \psi_i}_{-\log Z}.

Leading layers may be *preprocessing* (dequantisation, logit, whitening). ``log_prob`` counts
them, so it is a density of raw data; ``matched`` is the flow behind the cut, where scores are
matched.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267.
"""

__all__ = ["Flow", "Observed", "Point", "Taylor"]

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .bijections import Bijection, Jet, Linearization, Reshape
from .bijections.base import sum_event
from .bijections.dequantise import Dequantise
from .bijections.weighted import fixed_weights
from .laplacian import closed_laplacian, trace
from .randomness import generator as derive
from .randomness import normal


def _log_base(u: Tensor) -> Tensor:
    size = math.prod(u.shape[1:])
    return -0.5 * sum_event(u * u, u) - 0.5 * size * math.log(2 * math.pi)


class Point:
    """A flow at one batch of points: one forward sweep that energy, score and curvature share.

    Arguments:
        layers: The bijections, from data to latent.
        x: The points, with shape (B, *event).
        training: Whether the results are differentiated once, as a training step does.
    """

    def __init__(self, layers: Sequence[Bijection], x: Tensor, *, training: bool = False) -> None:
        self.layers, self.x = layers, x
        self.linearizations: list[Linearization] = []
        for layer in layers:
            self.linearizations.append(layer.gathered(x) if training else layer.linearize(x))
            x = self.linearizations[-1].y
        self.latent = x

    @cached_property
    def energy(self) -> Tensor:
        """E(x) in nats, with shape (B,)."""
        log_dets = (at.log_det() for at in self.linearizations)
        return -sum(log_dets, start=_log_base(self.latent))

    @cached_property
    def scores(self) -> list[Tensor]:
        """The scores over u, x_{L−1}, …, x: the last one is the score of the flow."""
        scores = [-self.latent]
        for at in reversed(self.linearizations):
            scores.append(at.pullback(scores[-1]))
        return scores

    def curvature(self, v: Tensor) -> Tensor:
        """Returns v·∇s·v with shape (K, B), by one tangent sweep of L GEMMs for each slice."""
        tangents = [v]
        for at in self.linearizations:
            tangents.append(at.tangent(tangents[-1]))
        last = tangents.pop()
        bends = (
            at.curvature(v, s)
            for at, v, s in zip(self.linearizations, tangents, self.scores[-2::-1], strict=True)
        )
        return sum(bends, start=-sum_event(last * last, self.latent))

    def laplacian(self) -> Tensor:
        """Returns tr ∇s with shape (B,), in closed form or by D tangent sweeps."""
        found = closed_laplacian(self.layers, self.linearizations, self.scores, self.x)
        return trace(self.curvature, self.x) if found is None else found


class Taylor:
    """A flow along the lines x + t v: v·s and v·∇s·v by one forward sweep of jets."""

    def __init__(self, layers: Sequence[Bijection], x: Tensor, v: Tensor) -> None:
        jet, slope, bend = Jet(x, v, None), 0.0, 0.0
        self._inputs: list[tuple[Bijection, Tensor]] = []
        for layer in layers:
            self._inputs.append((layer, jet.x))
            jet, first, second = layer.jet(jet)
            slope, bend = slope + first, bend + second
        u, du, ddu = jet
        second = du * du if ddu is None else torch.addcmul(du * du, u, ddu)
        self.latent = u
        self.slope = slope - sum_event(u * du, u)
        self.curvature = bend - sum_event(second, u)

    @cached_property
    def energy(self) -> Tensor:
        """E(x) in nats with shape (B,): the activations' log-determinants once more, no GEMM."""
        log_dets = (
            layer.forward_and_log_det(x)[1]
            for layer, x in self._inputs
            if not layer.constant_jacobian
        )
        return -sum(log_dets, start=_log_base(self.latent))


class Flow(nn.Module):
    """Creates a flow with a standard normal base.

    Arguments:
        event_shape: The shape of one example of raw data.
        layers: The bijections, from data to latent.
        cut: The number of leading layers that are preprocessing, in front of ``matched``.
        spec: How to build the same flow again, JSON-able; written into checkpoints.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        layers: Sequence[Bijection],
        *,
        cut: int = 0,
        spec: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= cut <= len(layers):
            raise ValueError(f"cut: found {cut}, expected 0 … {len(layers)}")
        self.event_shape = tuple(event_shape)
        self.layers = nn.ModuleList(layers)
        self.cut, self.spec = cut, spec
        tensors = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        self.like = nn.Buffer(next(tensors, torch.zeros(())).new_zeros(()), persistent=False)

    def preprocessed(self, chain: Iterable[Bijection], *, match_after: bool = True) -> "Flow":
        """Returns this flow behind ``chain``, sharing its layers; its events are rows (D,).

        Arguments:
            chain: The preprocessing, from raw data to this flow's events; copied.
            match_after: Whether scores are matched behind the whole chain (MaP); otherwise
                only dequantisation stands before the cut.
        """
        layers = [copy.deepcopy(layer).to(self.like) for layer in chain]
        dequantised = bool(layers) and isinstance(layers[0], Dequantise)
        rows = (math.prod(self.event_shape),)
        if rows != self.event_shape:
            layers.append(Reshape(rows, self.event_shape))
        cut = len(layers) if match_after else int(dequantised)
        front = {"preprocessing": getattr(chain, "spec", None), "match_after": match_after}
        spec = {**self.spec, **front} if self.spec else None
        return Flow(rows, [*layers, *self.layers], cut=cut, spec=spec).to(self.like)

    @property
    def matched(self) -> "Flow":
        """The flow behind the cut, sharing its layers."""
        return Flow(self._shape_at(self.cut), list(self.layers)[self.cut :])

    @property
    def initialised(self) -> bool:
        """Whether every layer has what it takes from data."""
        return all(layer.initialised for layer in self.layers)

    @torch.no_grad()
    def initialise(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Lets layers such as ``ActNorm`` take what they need from one batch of raw data.

        In order, each from what the layers before it make of ``x``. Layers that have it, from
        an earlier call or a checkpoint, keep it. Until then they are the identity.
        """
        x = self._continuous(x, generator)
        for layer in self.layers:
            if not layer.initialised:
                layer.initialise(x)
            x = layer(x)

    def preprocess(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns ``x`` carried through the preprocessing in front of the cut."""
        x = self._continuous(x, generator)
        for layer in list(self.layers)[: self.cut]:
            x = layer(x)
        return x

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the latent u with shape (B, *event)."""
        x = self._continuous(x, generator)
        for layer in self.layers:
            x = layer(x)
        return x

    def at(self, x: Tensor, generator: torch.Generator | None = None) -> Point:
        """Returns the flow at ``x``; energy, score and curvature then share one sweep."""
        return Point(list(self.layers), self._continuous(x, generator))

    def energy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns E(x) in nats with shape (B,); no log-determinant of a linear layer."""
        return self.latent_and_energy(x, generator)[1]

    def latent_and_energy(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns u and E(x); one forward sweep of L GEMMs."""
        x = self._continuous(x, generator)
        total: Tensor | float = 0.0
        for layer in self.layers:
            if layer.constant_jacobian:
                x = layer(x)
            else:
                x, log_det = layer.forward_and_log_det(x)
                total = total + log_det
        return x, -(_log_base(x) + total)

    def relative_energy(self, x: Tensor) -> Tensor:
        """Returns E(x) whose backward gives relative gradients, log-determinants included."""
        total: Tensor | float = 0.0
        for layer in self.layers:
            step = layer.relative if layer.constant_jacobian else layer.forward_and_log_det
            x, log_det = step(x)
            total = total + log_det
        return -(_log_base(x) + total)

    def log_normalizer(self) -> Tensor:
        """Returns log Z in nats, a scalar: O(D³ L), cached by weight version without grad."""
        layers = (layer for layer in self.layers if layer.constant_jacobian)
        return -sum((layer.log_det() for layer in layers), start=self.like.new_zeros(()))

    def log_prob(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the exact log-density of raw data in nats, with shape (B,).

        Integer data behind dequantisation are completed by uniform noise from ``generator``;
        without one the noise is the same at every call, a function of a row's place in the
        batch. A batch with any value that is no integer counts as completed already.
        """
        with fixed_weights(self):
            return -self.energy(x, generator) - self.log_normalizer()

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p with shape (B, *event): 2 L GEMMs, differentiable, no autograd."""
        return self.at(x).scores[-1]

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns E(x) and the score; 2 L GEMMs."""
        point = self.at(x)
        return point.energy, point.scores[-1]

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v by one second-order Taylor sweep.

        Arguments:
            x: The points, with shape (B, *event).
            v: The directions, with shape (B, *event) or (K, B, *event); results (B,) or (K, B).
        """
        taylor = Taylor(list(self.layers), self._continuous(x, None), v)
        return taylor.slope, taylor.curvature

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s and v·∇s·v with shape (K, B); (2 + K) L GEMMs for K slices."""
        point = self.at(x)
        curvature = point.curvature(v)
        return point.scores[-1], curvature

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s and tr ∇s, exactly, with shape (B,).

        With no activation or one, 2 L + 1 GEMMs and two products of D×D matrices; otherwise
        2 L + D (L − 1) GEMMs.
        """
        point = self.at(x)
        return point.scores[-1], point.laplacian()

    def inverse(self, u: Tensor) -> Tensor:
        """Returns the raw data x with latent ``u``; integers where the data are integers."""
        for layer in reversed(self.layers):
            u = layer.inverse(u)
        return u

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Returns ``n`` exact samples with shape (n, *event): O(D²) each once W is factorised."""
        return self.inverse(normal((n, *self._shape_at(len(self.layers))), self.like, generator))

    def _shape_at(self, index: int) -> tuple[int, ...]:
        shape = self.event_shape
        for layer in list(self.layers)[:index]:
            shape = getattr(layer, "target", shape)
        return shape

    def _continuous(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if x.shape[1:] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"x: found shape {tuple(x.shape)}, expected (B, {expected})")
        first = self.layers[0] if len(self.layers) else None
        if isinstance(first, Dequantise):
            noise = generator or derive(0, "dequantise", 0, device=self.like.device)
            return first.dequantise(x, self.like, noise)
        return x.to(self.like)


class Observed:
    """A flow that keeps the latent and the energy of the first points it is evaluated at.

    An anchor, a low-energy or a latent-mean term then reuses the objective's own forward sweep
    and costs no further GEMM.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.latent: Tensor | None = None
        self._energy: Callable[[], Tensor] | None = None

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (u, E) of the first B points seen, evaluating ``x`` if none was."""
        if self.latent is None:
            self.energy(x)
        return self.latent[: len(x)], self._energy()[: len(x)]

    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) with shape (B,)."""
        latent, energy = self.flow.latent_and_energy(x)
        self._keep(latent, lambda: energy)
        return energy

    def score(self, x: Tensor) -> Tensor:
        """Returns the score at ``x``."""
        point = self._point(x)
        return point.scores[-1]

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the energy and the score at ``x``."""
        point = self._point(x)
        return point.energy, point.scores[-1]

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the score and v·∇s·v."""
        point = self._point(x)
        curvature = point.curvature(v)
        return point.scores[-1], curvature

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the score and tr ∇s."""
        point = self._point(x)
        return point.scores[-1], point.laplacian()

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v."""
        taylor = Taylor(list(self.flow.layers), x, v)
        self._keep(taylor.latent, lambda: taylor.energy)
        return taylor.slope, taylor.curvature

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.flow, name)

    def _point(self, x: Tensor) -> Point:
        point = Point(list(self.flow.layers), x, training=True)
        self._keep(point.latent, lambda: point.energy)
        return point

    def _keep(self, latent: Tensor, energy: Callable[[], Tensor]) -> None:
        if self.latent is None:
            self.latent, self._energy = latent, energy
