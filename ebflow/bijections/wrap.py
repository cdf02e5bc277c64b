"""Transforms of PyTorch and of zuko as bijections."""

from torch import Tensor, nn
from torch.distributions import Transform

from .base import Contextual


class Wrap(Contextual):
    """Creates a bijection of a ``torch.distributions.Transform``, or of a lazy one of zuko's.

    The transform maps data towards the latent, as those of zuko's flows do, and preserves the
    shape of events. A lazy transform is a module: called with a context, or None, it returns a
    transform. Its parameters are trained with the flow.

    ``context`` is the number C of elements of the context of a lazy transform; 0: it has none.
    Checkpoints of flows with such layers load by ``ebflow.load(folder, into=flow)``.
    """

    def __init__(self, transform: Transform | nn.Module, *, context: int = 0) -> None:
        super().__init__(context)
        self.transform = transform

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        transform = self._at(x)
        if hasattr(transform, "call_and_ladj"):  # zuko computes both at once
            y, log_det = transform.call_and_ladj(x)
        else:
            y = transform(x)
            log_det = transform.log_abs_det_jacobian(x, y)
        return y, log_det.flatten(1).sum(1) if log_det.ndim > 1 else log_det

    def inverse(self, y: Tensor) -> Tensor:
        return self._at(y).inv(y)

    def _at(self, x: Tensor) -> Transform:
        lazy = isinstance(self.transform, nn.Module)
        return self.transform(self.contexts(x)) if lazy else self.transform
