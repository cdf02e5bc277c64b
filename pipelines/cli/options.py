"""Options of the measuring commands; importing them costs nothing."""

__all__ = ["Activation", "Bench", "Curves", "Objective"]

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.cluster.environment import cpus

Objective = Literal["ml", "relative_ml", "lazy_ml", "sml", "dsm", "exact_sm", "ssm", "ssm_vr",
                    "fd_ssm", "taylor_sm"]  # fmt: skip

Activation = Literal["smooth_leaky_relu", "spline", "tanh"]


@dataclass(frozen=True)
class Curves:
    """Trains a flow on whitened data in many ways, each for the same time.

    Study `objectives`: a dense flow by every objective, alone and beside the anchor, the published
    settings, and the recipe for images. Study `anchor`: the interval K of the normaliser's
    refreshes, the weight w of score matching and its noise σ, one at a time, for a dense flow or a
    convolutional one. Prints the validation NLL at several times, writes the figure and every
    curve. Nothing else should run meanwhile. Goes on where it stopped.
    """

    source: str
    """image data: a name (`ebflow data list`) or a .parquet file"""
    study: Literal["objectives", "anchor"] = "objectives"
    """what is varied"""
    architecture: Literal["dense", "convolutional"] = "dense"
    """two dense layers, or the six zero-padded convolutions of the paper (study anchor)"""
    kernel_size: int = 7
    """odd side of the convolutions' kernels"""
    lr: float = 2e-3
    """learning rate of Adam"""
    seconds: float = 100.0
    """training time of a cell, s (validation not counted)"""
    seeds: int = 3
    """seeds, from 0 on"""
    threads: int = 2
    """threads of a training"""
    validation: int | None = 1000
    """validation rows; None: the source's"""
    test: int | None = 1000
    """test rows; None: the source's"""
    only: tuple[str, ...] = ()
    """entries to train, by their label; none: all"""
    output: Path | None = None
    """folder of the cells, the figure and the table; None: runs/curves/STUDY-ARCHITECTURE"""


@dataclass(frozen=True)
class Bench:
    """Times one training step of every objective: fused Adam, float32.

    Rows give the least and the median time, for dense flows GEMMs of 2 B D² FLOP, the step's FLOP
    as a share of this machine's measured float32 matrix-product peak, and how much faster than
    exact ML by slogdet (of zero-padded convolutions) a step is. Then the growth of step times with
    D, and from which D on an objective is as fast as exact ML. Nothing else should run meanwhile.
    """

    architecture: Literal["dense", "convolutional"] = "dense"
    """what is timed"""

    sizes: tuple[int, ...] = (64, 256, 784, 1536, 3072)
    """dimensions D of dense flows"""
    images: tuple[tuple[int, int, int, int], ...] = ((1, 28, 28, 7), (3, 32, 32, 3))
    """convolutional flows: channels, height, width and side of the kernel, of each"""
    objectives: tuple[Objective, ...] = ()
    """objectives to time, alone and beside the anchor where it is timed; none: all"""
    depth: int = 2
    """dense layers L of dense flows"""
    activations: tuple[Activation, ...] = ("smooth_leaky_relu",)
    """activations of dense flows, timed in turn"""
    batch: int = 100
    """examples a step, B"""
    seconds: float = 2.0
    """least time given to each row, s"""
    threads: int = field(default_factory=cpus)
    """threads of a step"""
    huge_pages: bool = True
    """let the C library keep large gradients in huge pages (Linux with glibc)"""
