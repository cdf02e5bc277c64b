"""The flow: one class of options for each architecture."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from ebflow.recipes import completed
from pipelines.config.section import Section, kinds

LayerActivation = Literal["smooth_leaky_relu", "spline"]
Structure = Literal["full", "lower", "upper", "two_triangles", "lu", "monarch", "low_rank"]
NetworkActivation = Literal["swish", "elu", "leaky_relu"]


class Model(Section):
    """Options of every architecture. None stands for the recipe's or the architecture's own."""

    architecture: str
    base: Literal["normal", "mixture"] = "normal"
    """density of the latents; mixture: a mixture of Gaussians, which EM fits to preprocessed rows
    before the training"""
    depth: int | None = Field(None, ge=1, le=64)
    """linear layers (dense), autoregressive ones, or layers of a block or level"""

    @property
    def options(self) -> dict[str, Any]:
        """The options that the architecture is called with."""
        options = self.model_dump(exclude={"architecture", "base"}, exclude_none=True)
        return completed(self.architecture, options)

    @property
    def exact_categories(self) -> bool:
        """True if flows have exact probabilities of categories."""
        return self.architecture == "autoregressive" and self.base == "normal"

    @property
    def fits_every_shape(self) -> bool:
        """True if the architecture has flows of rows of every shape."""
        return self.architecture in ("dense", "autoregressive", "structured")


class Layers(Model):
    """Linear layers between learned monotone activations."""

    residual: bool | None = None
    """smooth leaky ReLU in its residual form"""
    centred: bool | None = None
    """smooth leaky ReLU through 0 with slope 1 (needed by scores alone)"""
    sign: Literal[-1, 1] | None = None
    """linear layers start as ± the identity"""
    bias: float | None = None
    """start of every offset"""
    noise: float | None = Field(None, ge=0)
    """noise on the identity at the start, over √D"""
    calibrated: bool | None = None
    """scale later layers so that whitened data start near the Gaussian"""
    activation: LayerActivation | None = None
    """activation between linear layers: smooth_leaky_relu, the paper's, or spline, learned"""


class Dense(Layers):
    """Matrices."""

    architecture: Literal["dense"] = "dense"
    linear: Literal["full", "learned_inverse"] | None = None
    """matrices alone, or with learned inverses, for self_normalizing and free_form; None: full"""


class Networks(Model):
    """Couplings or masked layers, whose parameters come from networks."""

    hidden: int | None = Field(None, ge=1)
    """width of the networks"""


class Convolutional(Layers, Networks):
    """Convolutions of images, with couplings behind them."""

    architecture: Literal["convolutional"] = "convolutional"
    kernel_size: int | None = Field(None, ge=1)
    """odd side of a convolution's kernel"""
    blocks: int | None = Field(None, ge=1)
    """image sizes"""
    hidden: int | None = Field(None, ge=0)
    """width of the networks of couplings, one behind every convolution; 0: none"""
    spectral_norm: bool | None = None
    """convolutions of spectral norm 1"""


class Glow(Networks):
    """Couplings and 1×1 convolutions of images of several sizes."""

    architecture: Literal["glow"] = "glow"
    levels: int | None = Field(None, ge=1)
    """image sizes"""
    activation: NetworkActivation | None = None
    """activation of the networks: swish, elu or leaky_relu"""


class PixelCNN(Networks):
    """Exact probabilities of the levels of images of integers, pixel by pixel."""

    architecture: Literal["pixelcnn"] = "pixelcnn"


class Coupling(Networks):
    """Couplings of rows."""

    architecture: Literal["coupling"] = "coupling"
    activation: NetworkActivation | None = None
    """activation of the networks: swish, elu or leaky_relu"""
    shift_activation: NetworkActivation | None = None
    """activation of the networks of shifts; None: that of all networks"""
    weight_norm: bool | None = None
    """dense layers whose rows are directions times trained lengths"""
    bound: float | None = Field(None, gt=0)
    """bound of the log-scales; None: free"""
    bins: int | None = Field(None, ge=2)
    """bins of the splines; None: affine"""


class Autoregressive(Networks):
    """Masked networks of rows, and dense layers between them."""

    architecture: Literal["autoregressive"] = "autoregressive"
    blocks: int | None = Field(None, ge=1)
    """residual blocks of the networks"""
    bins: int | None = Field(None, ge=2)
    """bins of the splines; None: 8"""
    mixing: Literal["rotation", "reversal"] | None = None
    """start of the dense layers between autoregressive ones"""


class Structured(Model):
    """Matrices, arbitrary or with a structure, and smooth leaky ReLUs."""

    architecture: Literal["structured"] = "structured"
    structure: Structure | None = None
    """matrices: full, triangles (lower, upper, or two_triangles), lu, monarch or low_rank"""
    rank: int | None = Field(None, ge=1)
    """rank of low_rank"""


# The classes of models by ``architecture``: an option of another architecture is an error.
AnyModel = Annotated[
    Dense | Convolutional | Glow | PixelCNN | Coupling | Autoregressive | Structured,
    Field(
        discriminator="architecture",
        description="named architecture: dense for rows, convolutional, glow and pixelcnn for "
        "images, coupling and autoregressive for few dimensions, structured to compare matrices",
    ),
]

MODELS: dict[str, type[Model]] = kinds(FieldInfo.from_annotation(AnyModel))
