"""Affine normalisation that starts from the statistics of data."""

__all__ = ["ActNorm"]

import torch
from torch import Tensor

from .elementwise import Affine


class ActNorm(Affine):
    """Creates a trainable affine layer a channel that ``initialise`` makes standardise a batch.

    Afterwards every channel of that batch has mean 0 and variance 1, and training goes on from
    there; a channel that is constant in it keeps its scale. Until then the layer is the identity.
    Whether it was initialised is part of its state, so that a checkpoint and a copy carry it.

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039.

    Arguments:
        shape: The shape of an event, (C, *); a vector's elements are its channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels = (shape[0], *[1] * (len(shape) - 1))
        super().__init__(torch.zeros(channels), torch.ones(channels), shape, trainable=True)
        self.register_buffer("seen", torch.tensor(False))

    @property
    def initialised(self) -> bool:
        """Whether the layer has seen data."""
        return bool(self.seen)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets shift and scale to the mean and 1 / the standard deviation of every channel."""
        deviation, mean = torch.std_mean(x, dim=[0, *range(2, x.ndim)], correction=0, keepdim=True)
        self.shift.copy_(mean[0])
        self.log_scale.copy_(-torch.where(deviation > 0, deviation, 1.0).log()[0])
        self.seen.fill_(True)
