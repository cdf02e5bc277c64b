"""Bijections, one family a file."""

__all__ = [
    "ActNorm",
    "Affine",
    "Bijection",
    "ConstantJacobian",
    "Convolution",
    "Coupling",
    "Dense",
    "Elementwise",
    "Jet",
    "Linearization",
    "Logit",
    "Part",
    "Permutation",
    "Pointwise",
    "Reshape",
    "ScaleShift",
    "SmoothLeakyReLU",
    "Spline",
    "Squeeze",
    "Weighted",
    "part",
    "random_rotation",
]

from .actnorm import ActNorm
from .base import Bijection, ConstantJacobian, Jet, Linearization
from .convolution import Convolution
from .coupling import Coupling, ScaleShift, Spline
from .elementwise import Affine, Elementwise, Logit, SmoothLeakyReLU
from .linear import Dense
from .part import Part, part
from .pointwise import Pointwise, random_rotation
from .reshape import Permutation, Reshape, Squeeze
from .weighted import Weighted
