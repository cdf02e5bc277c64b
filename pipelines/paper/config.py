"""Options of the paper's experiments and of their stages."""

from typing import Literal, get_args

from pydantic import Field

from pipelines.config import ClusterConfig, Dense, Dsm
from pipelines.config.model import AnyModel
from pipelines.config.objective import AnyObjective
from pipelines.config.section import NAME, UNKEYED, Section, Size

Name = Literal[
    "table",
    "colour-table",
    "toy",
    "runtime",
    "rivals",
    "tables",
    "phases",
    "missing",
    "detection",
    "conditional",
    "synthesis",
]

Peer = Literal["maf", "nsf", "gmm"]

PEERS: tuple[str, ...] = get_args(Peer)
"""Densities of other packages."""

Pattern = Literal["mcar20", "mcar40", "mnar"]

PATTERNS: tuple[str, ...] = get_args(Pattern)
"""Patterns of removed entries."""

Imputer = Literal[
    "ebflow", "miceforest", "MissForest", "BayesianRidge", "mixture", "Gaussian", "mean"
]

IMPUTERS: tuple[str, ...] = get_args(Imputer)
"""ebflow and its rivals in imputation."""

Predictor = Literal["ebflow", "boosted quantiles", "NGBoost", "mixture network", "zuko NSF"]

PREDICTORS: tuple[str, ...] = get_args(Predictor)
"""ebflow and its rivals in conditional densities."""


class StepsConfig(Section):
    """Timed training steps of several objectives on one network.

    Attributes:
        shape: The shape of an example.
        objectives: Their names; with ``runtime.ANCHORED`` behind it, one beside an anchor.
        seconds: Minimum time per objective.
    """

    model: AnyModel = Dense()
    shape: tuple[int, ...] = (784,)
    objectives: tuple[str, ...] = ()
    seconds: float = 1.0
    threads: int = 2


class StackConfig(Section):
    """Small dense networks trained at once: every preprocessing, start and learning rate.

    Attributes:
        activation: Smooth leaky ReLU; the same through 0 with slope 1; or a spline per element.
        starts: Sign of the identity and offset of every layer.
        rates: Adam's learning rates, which fall as a cosine.
        looks: Steps at which the networks are measured.
    """

    part: Literal["map", "pairs"] = "map"
    activation: Literal["published", "centred", "learned"] = "published"
    objective: AnyObjective = Dsm()
    preprocessings: tuple[Literal["whitened", "plain"], ...] = ("whitened",)
    starts: tuple[tuple[Literal[-1, 1], float], ...] = ((1, 0.0),)
    rates: tuple[float, ...] = (1e-3,)
    seed: int = 0
    steps: int = 500
    looks: tuple[int, ...] = (0, 500)
    threads: int = 1

    @property
    def objective_label(self) -> str:
        """The objective with its noise."""
        objective = self.objective
        return f"dsm {objective.sigma:g}" if isinstance(objective, Dsm) else objective.name


class DivergeConfig(Section):
    """Divergences of a flow from an exact density in the plane."""

    density: Literal["sine", "swirl", "checkerboard"] = "sine"
    samples: int = 10_000
    resolution: int = 120


class RivalConfig(Section):
    """A method, or a rival of ebflow, that is fitted to a table and measured by one stage.

    Attributes:
        seconds: Training seconds; None: no limit but ``steps``.
    """

    seed: int = 0
    seconds: float | None = None
    steps: int = 1_000_000
    threads: int = 1


class FillConfig(RivalConfig):
    """Entries removed from a table and imputed.

    Attributes:
        rival: The imputer.
        pattern: The removed entries: 20 or 40 % at random, or large values more often.
    """

    rival: Imputer = "ebflow"
    pattern: Pattern = "mcar20"


class PredictConfig(RivalConfig):
    """A column of a table predicted by a density given the others.

    Attributes:
        rival: The conditional density.
    """

    rival: Predictor = "ebflow"


class PeerConfig(RivalConfig):
    """A density of another package, fitted as its users do.

    Attributes:
        name: ``maf``, ``nsf``: zuko's flows; ``gmm``: scikit-learn's mixture of Gaussians, their
            number chosen by validation.
    """

    name: Peer = "gmm"
    seconds: float = 30.0


class SynthesisConfig(RivalConfig):
    """A model of a table that gives synthetic rows.

    Attributes:
        name: ``ebflow``; ``gmm``, scikit-learn's mixture of Gaussians; or ``ctgan``, ``tvae``.
    """

    name: Literal["ebflow", "gmm", "ctgan", "tvae"] = "ebflow"


class DetectConfig(Section):
    """Detectors of anomalies on one labelled table.

    Attributes:
        source: The file of the table.
    """

    source: str = Field(json_schema_extra=UNKEYED)
    seed: int = 0
    threads: int = 1


class LabelledConfig(Section):
    """The reading of a labelled table, which has no options."""


class PaperConfig(Section):
    """An experiment of the paper, at a scale."""

    experiment: Name = Field(
        "table",
        description="table: NLL by network and objective on grey images; colour-table: on colour "
        "images; toy: divergences from three densities in the plane; runtime: step times against "
        "D; rivals: other ways to train linear layers for the same time, scores alone among them; "
        "tables: the recipe beside densities of other packages; phases: where training by scores "
        "alone loses mass; missing: entries removed from tables, and imputed; conditional: "
        "densities of a column given the others; synthesis: rows sampled by the recipe and by "
        "other packages, compared with real ones; detection: anomalies in labelled tables",
    )
    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu",
        description="length of a training: 60 steps; some seconds, so that the experiment takes "
        "less than 20 minutes on two cores; or the paper's, on GPUs",
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
        description="the tables of tables, missing, synthesis and conditional, which predicts the "
        "last column: files, or names of data sets; of detection: .npz files with X and y, "
        ".parquet or .csv files with a column label, or folders of them",
        json_schema_extra=UNKEYED,
    )
    seconds: float | None = Field(
        None, gt=0, description="training seconds of a cell at scale cpu; None: the experiment's"
    )
    rows: int | None = Field(None, ge=3, description="number of rows to use; None: all")
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
        description="number of seeds; None: one, and of phases two, five or ten by scale",
    )
    threads: int = Field(2, ge=1, description="threads of a training on images")
    cluster: ClusterConfig = ClusterConfig()
