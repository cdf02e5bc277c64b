"""Bijections, one family a file."""

__all__ = ["ActNorm", "Affine", "Autoregressive", "Bijection", "Bounded", "Butterfly",
           "Categorical", "Cells", "ColumnCells", "ConditionalAffine", "ConstantJacobian",
           "Convolution", "Coupling", "Dense", "DenseWithInverse", "Dequantize", "Dequantizer",
           "Elementwise", "JohnsonSU", "Knot", "Linearization", "Logit", "LowRank",
           "MonotoneSpline", "Part", "Permutation", "PixelCNN", "Reshape", "ScaleShift",
           "SmoothLeakyReLU", "Spline", "Squeeze", "Structured", "Triangular",
           "TriangularFactors", "Univariate", "Weighted", "Wrap"]  # fmt: skip

from .activations import Elementwise, SmoothLeakyReLU
from .autoregressive import Autoregressive
from .base import Bijection, ConstantJacobian, Linearization
from .categorical import Categorical
from .cells import Cells, ColumnCells, Knot
from .columns import Bounded, JohnsonSU
from .conditional import ConditionalAffine
from .convolution import Convolution
from .coupling import Coupling
from .inverses import DenseWithInverse
from .learned import MonotoneSpline
from .linear import Dense
from .pixels import PixelCNN
from .preprocessing import ActNorm, Affine, Dequantize, Dequantizer, Logit
from .reshape import Part, Permutation, Reshape, Squeeze
from .structured import Butterfly, LowRank, Structured, Triangular, TriangularFactors
from .univariate import ScaleShift, Spline, Univariate
from .weighted import Weighted
from .wrap import Wrap
