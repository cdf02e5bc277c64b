"""Bijections, one family a file."""

__all__ = [
    "ActNorm",
    "Affine",
    "Bijection",
    "Bounded",
    "ConditionalAffine",
    "ConstantJacobian",
    "Convolution",
    "Coupling",
    "Dense",
    "Dequantise",
    "DequantiseColumns",
    "Elementwise",
    "JohnsonSU",
    "Linearization",
    "Logit",
    "MonotoneSpline",
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

from .activations import Elementwise, MonotoneSpline, SmoothLeakyReLU
from .base import Bijection, ConstantJacobian, Linearization
from .columns import Bounded, DequantiseColumns, JohnsonSU
from .conditional import ConditionalAffine
from .convolution import Convolution, Pointwise, random_rotation
from .coupling import Coupling, ScaleShift, Spline
from .linear import Dense
from .preprocessing import ActNorm, Affine, Dequantise, Logit
from .reshape import Part, Permutation, Reshape, Squeeze, part
from .weighted import Weighted
