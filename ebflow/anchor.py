r"""The lazily refreshed normalizer.

Score matching lets a flow lose a latent direction to a linear term of its energy: the Fisher
divergence barely changes, and the likelihood drops. The *anchor* adds the likelihood with a stale
normalizer, which prevents this. A refresh computes, for every layer of costly
log-determinant with weight :math:`W_0`, the log-determinant and its gradient
:math:`g = \nabla \log |\det J(W_0)|` (:math:`W_0^{-\top}` for a dense layer). Until the next
refresh the anchor uses

.. math:: \log |\det J(W)| \approx \log |\det J(W_0)| + \langle g, W - W_0 \rangle,

O(size of W) a step. W is the weight after its parametrizations, which are followed exactly.

The adaptive rule bounds the drift :math:`\|r - J_0^{-1} J r\| / \|r\|` over random probes
:math:`r`; the relative error of the stale gradient is of that order. For a dense layer
:math:`J_0^{-1} = g^\top`. For others the first check after a refresh factorizes :math:`J_0` and
stores the factors: D k W C numbers for a zero-padded convolution. A probe costs one product and
one solution, O(D²) at most.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .bijections import Weighted
from .bijections.base import products
from .errors import NonFinite
from .flow import Flow
from .randomness import generator as derive

PROBES = 4  # Random probes r of a check of the drift


class Anchor:
    """Creates a first-order model of a flow's log Z, with refreshes by rule.

    Arguments:
        flow: The flow; only its costly log-determinants are modelled, the others are exact.
        interval: The largest number of steps between refreshes.
        tolerance: The drift that causes an earlier refresh; None: refreshes by interval alone.
        check_every: The number of steps between checks of the drift.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        interval: int = 100,
        tolerance: float | None = None,
        check_every: int = 10,
        seed: int = 0,
    ) -> None:
        if interval < 1 or check_every < 1:
            raise ValueError("anchor: interval and check_every must be at least 1")
        layers = [layer.unwrapped for layer in flow.layers if layer.constant_jacobian]
        weighted = (layer for layer in layers if isinstance(layer, Weighted))
        self.lazy = [layer for layer in weighted if layer.volume_parameters()]
        self.exact = [layer for layer in layers if layer not in self.lazy]
        self.interval, self.tolerance, self.check_every = interval, tolerance, check_every
        self.seed = seed
        self.refreshes, self.age, self.drift, self.step = 0, 0, 0.0, -1
        self.offset = torch.zeros(())
        self.kept: list[dict[str, Tensor]] = []
        self._solvers: list[Callable[[Tensor], Tensor]] = []

    def follow(self, step: int) -> None:
        """Refreshes if the rule requires it at a training step; later calls at it do nothing."""
        if step == self.step:
            return
        device = _like(self.lazy[0]).device.type if self.lazy else "cpu"
        with products("highest"), torch.autocast(device, enabled=False):
            if not self.refreshes or self.age >= self.interval or self._drifted():
                self.refresh()
        self.age, self.step = self.age + 1, step

    def refresh(self) -> None:
        """Computes log Z and its gradient at the present weights, by exact log-determinants."""
        offset, kept = torch.zeros(()), []
        for layer in self.lazy:  # one by one, so that only one is in memory in factors
            weight = layer.weight.detach().clone().requires_grad_()
            with torch.enable_grad():
                log_det = layer.volume(weight)
            (gradient,) = torch.autograd.grad(log_det, weight)
            weight, log_det = weight.detach(), log_det.detach()
            offset = offset + log_det - torch.dot(gradient.flatten(), weight.flatten())
            kept.append({"gradient": gradient.contiguous(), "weight": weight})
        if not torch.isfinite(offset):
            raise NonFinite("anchor: a linear layer became singular; lower the learning rate")
        self.offset, self.kept, self._solvers = offset, kept, []
        self.refreshes, self.age, self.drift = self.refreshes + 1, 0, 0.0

    def log_normalizer(self) -> Tensor:
        """Returns the model of log Z in nats, a scalar; its gradient is the stale one.

        Raises:
            RuntimeError: before the first refresh.
        """
        if not self.refreshes:
            raise RuntimeError("anchor: found no refresh before log_normalizer, expected one")
        exact = sum((layer.log_det() for layer in self.exact), start=self.offset)
        pairs = zip(self.lazy, self.kept, strict=True)
        terms = (torch.dot(at.weight.flatten(), k["gradient"].flatten()) for at, k in pairs)
        return -(exact + sum(terms, self.offset * 0))

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors that an exact resume needs."""
        counts = torch.tensor([self.refreshes, self.age, self.drift], dtype=torch.float64)
        kept = {f"{name}.{i}": t for i, k in enumerate(self.kept) for name, t in k.items()}
        return {"counts": counts, "offset": self.offset, **kept}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores ``state``."""
        refreshes, age, self.drift = state["counts"].tolist()
        self.refreshes, self.age, self.offset = int(refreshes), int(age), state["offset"]
        self.step = -1
        self.kept = [
            {name: state[f"{name}.{i}"].to(_like(layer)) for name in ("gradient", "weight")}
            for i, layer in enumerate(self.lazy if self.refreshes else [])
        ]
        self._solvers = []

    def _drifted(self) -> bool:
        if self.tolerance is None or self.age % self.check_every:
            return False
        if not self._solvers:
            pairs = zip(self.lazy, self.kept, strict=True)
            self._solvers = [layer.solver(**kept) for layer, kept in pairs]
        drifts = list(map(self._drift, self.lazy, self._solvers))
        self.drift = float(torch.stack(drifts).max()) if drifts else 0.0
        return self.drift > self.tolerance

    @torch.no_grad()
    def _drift(self, layer: Weighted, solve: Callable[[Tensor], Tensor]) -> Tensor:
        generator = derive(self.seed, "drift", self.refreshes, self.age)
        r = torch.randn(PROBES, *layer.event_shape, generator=generator).to(_like(layer))
        return (r - solve(layer.linear(r))).norm() / r.norm()


def _like(layer: Weighted) -> Tensor:
    """Returns a tensor of the layer's type and device, without reading its weight."""
    return layer.volume_parameters()[0]
