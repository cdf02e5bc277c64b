"""Bijections, one family a file."""

__all__ = [
    "Affine",
    "Bijection",
    "ConstantJacobian",
    "Convolution",
    "Dense",
    "Elementwise",
    "Jet",
    "Linearization",
    "Logit",
    "Permutation",
    "Pointwise",
    "Reshape",
    "SmoothLeakyReLU",
    "Squeeze",
    "Weighted",
    "random_rotation",
]

from .base import Bijection, ConstantJacobian, Jet, Linearization
from .convolution import Convolution
from .elementwise import Affine, Elementwise, Logit, SmoothLeakyReLU
from .linear import Dense
from .pointwise import Pointwise, random_rotation
from .reshape import Permutation, Reshape, Squeeze
from .weighted import Weighted
