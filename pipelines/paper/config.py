"""Options of the paper's experiments and of their stages."""

from typing import Literal

from pydantic import Field

from pipelines.config import ClusterConfig
from pipelines.config.section import NAME, UNKEYED, Section, Size

Name = Literal[
    "table",
    "colour-table",
    "tables",
    "missing",
    "detection",
    "plane",
    "runtime",
    "ablation",
    "glow",
    "inpainting",
    "matrices",
    "curves",
    "rivals",
    "phases",
    "formulas",
    "all",
]

# Patterns of removed entries: 20 or 40 % at random, or large values more often.
PATTERNS = ("mcar20", "mcar40", "mnar")


class RivalConfig(Section):
    """A method, or a rival of it, that one stage fits to a data set and measures."""

    rival: str
    pattern: str = ""  #: The pattern of removed entries, where some are
    seed: int = 0
    seconds: float | None = None  #: Training seconds; None: no limit but ``steps``
    steps: int = 1_000_000
    threads: int = 1


class DivergeConfig(Section):
    """The measurement of a flow beside an exact density in the plane."""

    density: Literal["sine", "swirl", "checkerboard"] = "sine"
    sigma: float = 0.375  #: The noise that smooths the density, in units of the data
    samples: int = 10_000  #: New points of the density
    shown: int = 2_000  #: Points of a picture
    pixels: int = 100  #: Pixels across a picture
    threads: int = 1


class ModesConfig(Section):
    """The measurement of a flow beside 512 modes in ten dimensions."""

    samples: int = 10_000  #: New points, and samples of the flow
    threads: int = 1


class StepsConfig(Section):
    """The timing of training steps on one network."""

    network: Literal["FC", "CNN"] = "FC"
    channels: int = 1  #: Colours of an image
    side: int = 28  #: Pixels of its side
    objectives: tuple[str, ...] = ("ml", "dsm")
    batch: int = 100
    seconds: float = 1.0  #: Least seconds of an objective
    square: int = 2_048  #: Largest square product that measures the machine's rate
    repetition: int = 0  #: The number of the measurement, which distinguishes repetitions
    threads: int = 1

    @property
    def size(self) -> int:
        """The dimension D of an image."""
        return self.channels * self.side**2


class InpaintConfig(Section):
    """The filling of masked test images by a flow, and by simpler means."""

    images: int = 48  #: Test images
    samples: int = 4  #: Completed copies of each image by each chain
    steps: int = 500  #: Steps of a chain
    seed: int = 0
    threads: int = 1


class FormulasConfig(Section):
    """The check of the paper's formulas at a size."""

    size: int = 4  #: D
    points: int = 5  #: Points at which formulas are compared
    repeats: int = 200  #: Repetitions of a stochastic objective
    seed: int = 0
    threads: int = 1


class PaperConfig(Section):
    """An experiment of the paper, at a scale."""

    experiment: Name = "table"
    """table, colour-table: NLL by network and objective on grey or colour images; tables: the
    recipe beside densities of other packages; missing, detection: imputation, anomalies, by
    ebflow and by other packages; plane: divergences from known densities of two columns, and
    pictures; runtime: the time of a training step against the dimension; ablation: NLL with one
    published setting changed; glow: Glow by score matching, and its samples; inpainting: masked
    pixels of images by Langevin's diffusion; matrices: arbitrary and structured matrices on 512
    modes in ten dimensions; curves: NLL against steps and seconds; rivals: ways to train linear
    layers; phases: trainings that lose mass by scores alone; formulas: checks of the paper's
    formulas; all: every item of the three papers, on one page"""
    scale: Literal["smoke", "cpu", "full"] = "cpu"
    """length of a training: 60 steps; some seconds, so that the experiment takes less than 20
    minutes on two cores; or the paper's, on GPUs"""
    name: str | None = Field(None, pattern=NAME, json_schema_extra=UNKEYED)
    """name of the run; None: the experiment's"""
    source: str | None = Field(None, min_length=1, json_schema_extra=UNKEYED)
    """images in place of the paper's: a data set (`ebflow data list`), a .parquet file or a
    folder"""
    sources: tuple[str, ...] = Field((), json_schema_extra=UNKEYED)
    """tables: files, or names of data sets; those of detection have a column label, which is 0 in
    normal rows"""
    networks: tuple[str, ...] = ()
    """table, colour-table, ablation: only these networks (FC, CNN); none: all"""
    settings: tuple[str, ...] = ()
    """table, colour-table, ablation: only these settings (paper, recipe; no-map, …); none: all"""
    objectives: tuple[str, ...] = ()
    """table, colour-table, ablation, runtime: only these objectives, as dsm; none: all"""
    seconds: float | None = Field(None, gt=0)
    """training seconds of a cell at scale cpu; None: the experiment's"""
    steps: int | None = Field(None, ge=1)
    """training steps of a cell at scale full; None: the experiment's"""
    rows: int | None = Field(None, ge=3)
    """number of rows to use; None: all"""
    validation: Size | None = Field(None, gt=0)
    """validation rows, or their share if below 1; None: the source's"""
    test: Size | None = Field(None, gt=0)
    """test rows, or their share if below 1; None: the source's"""
    seed: int = Field(0, ge=0)
    """the first seed"""
    seeds: int = Field(1, ge=1)
    """number of seeds"""
    threads: int = Field(2, ge=1)
    """threads of a training on images, or of a timing"""
    cluster: ClusterConfig = ClusterConfig()
