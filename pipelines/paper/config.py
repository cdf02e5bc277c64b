"""What the experiments of the flow's paper, and their stages, can be told."""

from typing import Literal, get_args

from pydantic import Field

from pipelines.config import ClusterConfig, ObjectiveConfig
from pipelines.config.section import NAME, UNKEYED, Section, Size, Threaded

Peer = Literal["maf", "nsf", "gmm", "kde"]

PEERS: tuple[str, ...] = get_args(Peer)
"""Densities of other packages."""

Method = Literal[
    "ml", "relative", "lazy_ml", "lu", "selfnorm", "freeform", "dsm", "ssm_vr", "circular", Peer
]

METHODS: tuple[Method, ...] = tuple(name for name in get_args(Method) if name != "circular")


class StepsConfig(Section):
    """Steps of every objective on one net, timed."""

    net: Literal["FC", "CNN"] = Field("FC", description="two dense layers, or six convolutions")
    variant: Literal["plain", "spline", "tanh", "circular", "masked"] = Field(
        "plain", description="another activation of dense layers, or padding of convolutions"
    )
    channels: int = Field(1, ge=1, description="channels of the images")
    side: int = Field(28, ge=4, multiple_of=4, description="height and width of the images")
    seconds: float = Field(1.0, gt=0, description="least time given to an objective, s")
    threads: int = Field(2, ge=1, description="threads of a step")


class StackConfig(Threaded, Section):
    """Small dense nets that are trained at once: of every preprocessing, start and rate."""

    part: Literal["map", "wide", "pairs"] = Field("map", description="part of the experiment")
    activation: Literal["published", "centred", "learned"] = Field(
        "published",
        description="smooth leaky ReLU, the same through 0 with slope 1, or a spline an element",
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    preprocessings: tuple[Literal["whitened", "plain"], ...] = Field(
        ("whitened",), min_length=1, description="data behind the logit: whitened, or as they are"
    )
    starts: tuple[tuple[Literal[-1, 1], float], ...] = Field(
        ((1, 0.0),), min_length=1, description="signs of the identity with offsets of every layer"
    )
    rates: tuple[float, ...] = Field((1e-3,), min_length=1, description="Adam's learning rates")
    seed: int = Field(0, ge=0, description="seed of batches and noise")
    steps: int = Field(500, ge=1, description="steps of a training; the rate falls as a cosine")
    looks: tuple[int, ...] = Field((0, 500), description="steps at which nets are measured")
    threads: int = Field(1, ge=1, description="threads")

    @property
    def trained_by(self) -> str:
        """The objective with its noise."""
        name = self.objective.name
        return f"{name} {self.objective.sigma:g}" if name == "dsm" else name


class DivergeConfig(Section):
    """How a flow differs from an exact density in the plane."""

    density: Literal["sine", "swirl", "checkerboard"] = Field(
        "sine", description="density, smoothed by sigma"
    )
    sigma: float = Field(0.375, gt=0, description="noise, in the units of the data")
    samples: int = Field(10_000, ge=2, description="fresh points of the density")
    resolution: int = Field(120, ge=2, description="pixels a side of the pictures")


class ImputeConfig(Threaded, Section):
    """Imputation of missing pixels of test images, by the flow's paper's chain and Langevin's."""

    images: int = Field(32, ge=1, description="test images at most")
    draws: int = Field(2, ge=1, description="chains an image, of each sampler")
    steps: int = Field(500, ge=1, description="steps of a chain")
    seed: int = Field(0, ge=0, description="seed of masks and chains")
    threads: int = Field(2, ge=1, description="threads", json_schema_extra=UNKEYED)


class FillConfig(Threaded, Section):
    """Entries that are removed from a table, put back by a flow trained without them."""

    share: float = Field(0.2, gt=0, lt=1, description="share of the entries that is removed")
    draws: int = Field(20, ge=2, description="draws of a test row")
    seconds: float | None = Field(None, gt=0, description="training seconds; None: the steps")
    steps: int = Field(6_000, ge=1, description="training steps at most")
    seed: int = Field(0, ge=0, description="seed of what is removed, of training and of draws")
    threads: int = Field(1, ge=1, description="threads")


class PeerConfig(Threaded, Section):
    """A density of another package, fitted as its users do."""

    name: Peer = Field(
        "gmm",
        description="maf, nsf: zuko's flows; gmm: scikit-learn's mixture of Gaussians, its number "
        "by validation; kde: Gaussian kernels, their width by validation",
    )
    seed: int = Field(0, ge=0, description="seed of starts and batches")
    seconds: float | None = Field(
        None, gt=0, description="training seconds, validations not counted; None: the steps alone"
    )
    steps: int = Field(1_000_000, ge=1, description="steps of maf and nsf at most")
    threads: int = Field(1, ge=1, description="threads")


class PaperConfig(Section):
    """An experiment of the paper, at a scale."""

    experiment: Literal[
        "table",
        "toy",
        "ablation",
        "runtime",
        "matrices",
        "glow",
        "imputation",
        "rivals",
        "scores",
        "tables",
        "phases",
        "missing",
        "anchor",
    ] = Field(
        "table",
        description="table: NLL by net and objective; toy: divergences from three densities in "
        "the plane; ablation: EMA and MaP; runtime: step times against D; matrices: full and "
        "triangular ones in ten dimensions; glow: likelihood and samples of Glow; imputation: "
        "missing pixels of photographs; rivals: other trainings of linear layers at equal time; "
        "scores: score matching with learned activations, beside the anchor and alone; "
        "tables: the recipe beside other packages' densities; phases: where training by scores "
        "alone loses mass; missing: entries removed from tables, put back; anchor: the interval, "
        "the weight and the noise of matching scores beside the lazily refreshed normaliser",
    )
    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu",
        description="a training's length: 60 steps; some seconds, so that the experiment ends "
        "in less than 20 minutes on two cores; or the paper's, on GPUs",
    )
    name: str | None = Field(
        None,
        pattern=NAME,
        description="name of the run; None: the experiment's",
        json_schema_extra=UNKEYED,
    )
    source: str | None = Field(
        None,
        min_length=1,
        description="images in place of the paper's: a data set (`ebflow data list`), a .parquet "
        "file or a folder",
        json_schema_extra=UNKEYED,
    )
    sources: tuple[str, ...] = Field(
        (),
        description="the tables of tables and missing: .parquet files, or names of data sets",
        json_schema_extra=UNKEYED,
    )
    methods: tuple[Method, ...] = Field(
        METHODS,
        min_length=1,
        description="the methods of rivals, beside ml; circular, of images, are convolutions by "
        "their Fourier transform; maf, nsf, gmm and kde are other packages' densities",
    )
    images: Literal["grey", "colour"] = Field(
        "grey", description="half of the table: MNIST's settings and numbers, or CIFAR-10's"
    )
    seconds: float | None = Field(
        None, gt=0, description="training seconds of a cell at scale cpu; None: the experiment's"
    )
    rows: int | None = Field(None, ge=3, description="use only that many rows; None: all")
    validation: Size | None = Field(
        None, gt=0, description="validation rows, or their share if below 1; None: the source's"
    )
    test: Size | None = Field(
        None, gt=0, description="test rows, or their share if below 1; None: the source's"
    )
    seed: int = Field(0, ge=0, description="the first seed")
    seeds: int | None = Field(
        None,
        ge=1,
        description="seeds, one after another; None: one, and of phases two, five or ten by scale",
    )
    threads: int = Field(2, ge=1, description="threads of a training on images")
    cluster: ClusterConfig = ClusterConfig()
