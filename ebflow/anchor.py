r"""The lazily refreshed normaliser.

Score matching is blind to mass: a flow may lose a latent direction to a linear term of its
energy, at almost no Fisher divergence and at a great loss of likelihood. The *anchor* adds the
true likelihood with a stale normaliser. At a refresh, with weights :math:`\theta_0`, it keeps
:math:`\log Z(\theta_0)` and :math:`g = \nabla \log Z(\theta_0)` (:math:`-W_0^{-\top}` for a dense
layer), and until the next one uses

.. math:: \log Z(\theta) \approx \log Z(\theta_0) + \langle g, \theta - \theta_0 \rangle,

O(D²) a step. With score-matching weight 0 this is lazy maximum likelihood.

The adaptive rule bounds the drift :math:`\|r - W_0^{-1} W r\| / \|r\|` over random probes
:math:`r`, O(D²) a probe; the relative error of the stale gradient is of that order.
"""

__all__ = ["Anchor"]

import torch
from torch import Tensor, nn

from .errors import NonFinite
from .flow import Flow
from .randomness import generator as derive


class Anchor:
    """Creates a first-order model of a flow's log Z, refreshed by rule.

    Arguments:
        flow: The flow whose log-determinants are modelled: the costly ones lazily.
        interval: The largest number of steps between refreshes.
        tolerance: The drift beyond which weights are refreshed earlier; None: by interval alone.
        check_every: The number of steps between looks at the drift.
        probes: The number of random probes r.
        seed: Where the probes come from.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        interval: int = 100,
        tolerance: float | None = None,
        check_every: int = 10,
        probes: int = 4,
        seed: int = 0,
    ) -> None:
        if interval < 1 or check_every < 1 or probes < 1:
            raise ValueError("anchor: interval, check_every and probes must be at least 1")
        layers = [layer for layer in flow.layers if layer.constant_jacobian]
        self.lazy = [layer for layer in layers if layer.lazy and layer.volume_parameters()]
        self.exact = [layer for layer in layers if layer not in self.lazy]
        self.interval, self.tolerance, self.check_every = interval, tolerance, check_every
        self.probes, self.seed = probes, seed
        self.refreshes, self.age, self.drift = 0, 0, 0.0
        self.offset = torch.zeros(())
        self.gradients: list[Tensor] = []

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters of the lazily modelled log-determinants."""
        return [weight for layer in self.lazy for weight in layer.volume_parameters()]

    def step(self) -> None:
        """Refreshes if the rule asks for it; called once before every training step."""
        if not self.refreshes or self.age >= self.interval or self._drifted():
            self.refresh()
        self.age += 1

    def refresh(self) -> None:
        """Takes log Z and its gradient at the present weights; O(D³) for every dense layer."""
        with torch.enable_grad():
            log_det = sum((layer.log_det() for layer in self.lazy), start=torch.zeros(()))
        if not torch.isfinite(log_det):
            raise NonFinite("anchor: a linear layer became singular; lower the learning rate")
        weights = self.weights
        gradients = torch.autograd.grad(log_det, weights) if weights else ()
        self.gradients = [gradient.contiguous() for gradient in gradients]
        self.offset = log_det.detach() - self._inner(detach=True)
        self.refreshes, self.age, self.drift = self.refreshes + 1, 0, 0.0

    def log_normalizer(self) -> Tensor:
        """Returns the model of log Z in nats, a scalar; its gradient is the stale one."""
        exact = sum((layer.log_det() for layer in self.exact), start=self.offset)
        return -(exact + self._inner())

    def state(self) -> dict[str, Tensor]:
        """Returns what an exact resume needs, as tensors."""
        counts = torch.tensor([self.refreshes, self.age, self.drift], dtype=torch.float64)
        gradients = {f"gradient.{i}": g for i, g in enumerate(self.gradients)}
        return {"counts": counts, "offset": self.offset, **gradients}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores ``state``."""
        refreshes, age, self.drift = state["counts"].tolist()
        self.refreshes, self.age, self.offset = int(refreshes), int(age), state["offset"]
        known = self.weights if self.refreshes else []
        self.gradients = [state[f"gradient.{i}"].to(w) for i, w in enumerate(known)]

    def _inner(self, *, detach: bool = False) -> Tensor:
        pairs = zip(self.weights, self.gradients, strict=True)
        terms = ((w.detach() if detach else w, g) for w, g in pairs)
        return sum((torch.dot(w.flatten(), g.flatten()) for w, g in terms), self.offset * 0)

    def _drifted(self) -> bool:
        if self.tolerance is None or self.age % self.check_every:
            return False
        pairs = zip(self.weights, self.gradients, strict=True)
        self.drift = max((self._drift(w, g) for w, g in pairs if w.ndim == 2), default=0.0)
        return self.drift > self.tolerance

    @torch.no_grad()
    def _drift(self, weight: Tensor, gradient: Tensor) -> float:
        generator = derive(self.seed, "drift", self.refreshes, self.age)
        r = torch.randn(self.probes, len(weight), generator=generator).to(weight)
        return float((r - r @ weight.mT @ gradient).norm() / r.norm())
