"""Bijections, one family a file."""

__all__ = [
    "ActNorm",
    "Affine",
    "Bijection",
    "ConstantJacobian",
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
    "part",
]

from .actnorm import ActNorm
from .base import Bijection, ConstantJacobian, Jet, Linearization
from .coupling import Coupling, ScaleShift, Spline
from .elementwise import Affine, Elementwise, Logit, SmoothLeakyReLU
from .linear import Dense
from .part import Part, part
from .pointwise import Pointwise
from .reshape import Permutation, Reshape, Squeeze
