"""Bijections, one family a file."""

__all__ = [
    "Affine",
    "Bijection",
    "ConstantJacobian",
    "Dense",
    "Elementwise",
    "Jet",
    "Linearization",
    "Logit",
    "Permutation",
    "Reshape",
    "SmoothLeakyReLU",
]

from .base import Bijection, ConstantJacobian, Jet, Linearization
from .elementwise import Affine, Elementwise, Logit, SmoothLeakyReLU
from .linear import Dense
from .reshape import Permutation, Reshape
