"""The flow."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section


class ModelConfig(Section):
    """The flow. What is None is the architecture's own, or the recipe's for it."""

    architecture: Literal["dense", "convolutional", "glow", "coupling", "autoregressive"] = Field(
        "dense",
        description="named architecture: dense for rows, convolutional and glow for images, "
        "coupling and autoregressive for few dimensions",
    )
    base: Literal["normal", "mixture"] = Field(
        "normal",
        description="density of the latents; mixture: of Gaussians, trained on from its fit by EM "
        "behind the preprocessing, so that training starts where that ends",
    )
    depth: int | None = Field(
        None,
        ge=1,
        le=64,
        description="linear layers (dense), autoregressive ones, or layers of a block or level",
    )
    linear: Literal["full", "lu", "learned_inverse"] | None = Field(
        None,
        description="linear layers of dense: full, factorized (lu), or with an inverse that is "
        "learned beside them",
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="slope of the smooth leaky ReLU below 0"
    )
    residual: bool | None = Field(None, description="smooth leaky ReLU in its residual form")
    centred: bool | None = Field(
        None, description="smooth leaky ReLU through 0 with slope 1 (needed by scores alone)"
    )
    sign: Literal[-1, 1] | None = Field(None, description="linear layers start as ± the identity")
    bias: float | None = Field(None, description="start of every offset")
    noise: float | None = Field(
        None, ge=0, description="noise on the identity at the start, over √D"
    )
    calibrated: bool | None = Field(
        None, description="scale later layers so that whitened data start near the Gaussian"
    )
    kernel_size: int | None = Field(None, ge=1, description="odd side of a convolution's kernel")
    padding: Literal["zero", "circular"] | None = Field(
        None, description="padding of convolutions, each with its exact log-determinant"
    )
    blocks: int | None = Field(
        None,
        ge=1,
        description="image sizes of convolutional; residual blocks of autoregressive's networks",
    )
    levels: int | None = Field(None, ge=1, description="image sizes of glow")
    spectral_norm: bool | None = Field(None, description="convolutions of spectral norm 1")
    hidden: int | None = Field(
        None,
        ge=0,
        description="width of the networks of couplings and autoregressive layers; of "
        "convolutional: that of a coupling behind every convolution, 0: no couplings",
    )
    activation: Literal["smooth_leaky_relu", "spline", "swish", "elu", "leaky_relu"] | None = (
        Field(
            None,
            description="of dense and convolutional: smooth_leaky_relu, the paper's, or spline, "
            "learned; of the couplings' networks: swish, elu or leaky_relu",
        )
    )
    cells: int | None = Field(None, ge=2, description="cells of a spline's grid, an even number")
    shift_activation: Literal["swish", "elu", "leaky_relu"] | None = Field(
        None, description="of coupling's networks for shifts; None: that of the others"
    )
    bound: float | None = Field(
        None,
        gt=0,
        description="bound of the log-scales of coupling's couplings; None: free",
    )
    norm: Literal["spectral", "weight"] | None = Field(
        None, description="coupling's dense layers: of spectral norm 1, or rows of trained lengths"
    )
    bins: int | None = Field(
        None,
        ge=2,
        description="bins of the splines of coupling and autoregressive; None: affine",
    )
    mixing: Literal["rotation", "reversal"] | None = Field(
        None, description="how the dense layers between autoregressive ones start"
    )
