"""The description of an experiment: its cells, and its table, figures and claims.

A *cell* is one line of an experiment for one seed. Cells with equal labels differ by their seed;
the table shows them as one line. There are three kinds of cells:

* A flow (``Cell.of_flow``): it is trained, and its likelihood is evaluated. ``measure`` adds a
  stage that measures the trained flow: ``Measure(stage, config)`` has the stage's name in
  ``pipelines.paper.graph.STAGES`` and its configuration. That stage is called with the folders
  ``data``, ``preprocessed`` and ``trained``, whose ``checkpoint/`` and ``last/``
  ``ebflow.checkpoint.load`` reads. With ``likelihood=False`` nothing else is evaluated.
* A rival (``stage`` is a name in ``STAGES``): the stage fits something to the data and measures
  it. It is called with ``data``, and ``preprocessed`` if the cell has ``preprocess``.
* A stage without data (``stage``, and ``data`` is None), such as the timing of steps.

Each of these stages is a function ``name(config, *, run, **folders)`` in
``pipelines/paper/name.py``, cached and tracked as all others. It writes ``evaluation.json`` by
``run.write_metrics``, whose metrics join the cell's row, and any other file. An experiment finds
them in ``Finished.folders``: ``trained`` and ``likelihood`` of a flow, and ``measured`` of the
stage that the cell names.

To add an experiment: write ``pipelines/paper/experiments/name.py`` with an ``Experiment``, and
enter it in ``pipelines.paper.compare.EXPERIMENTS`` and ``pipelines.paper.config.Name``. To add a
stage: write its module, enter it in ``STAGES``, and write its configuration in
``pipelines.paper.config``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ebflow.errors import BadInput
from pipelines.config import DataConfig, DensityConfig, PreprocessFit, Section
from pipelines.config.recipes import mnist9k_dense
from pipelines.paper.config import PaperConfig, RivalConfig
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.result import Table
from pipelines.reporting.statistics import student

if TYPE_CHECKING:
    from pipelines.reporting.style import Captioned

# The options of experiments on images.
IMAGE_OPTIONS = frozenset(
    (
        "source",
        "seconds",
        "steps",
        "rows",
        "validation",
        "test",
        "seed",
        "seeds",
        "threads",
        "cluster",
    )
)

# The options that choose cells, by the label that they compare.
CHOICES = {"network": "networks", "settings": "settings", "objective": "objectives"}

SMOKE_STEPS = 60

# Steps of a training from which on it decides a claim.
DECISIVE_STEPS = 200

# The recipe matches scores in one of ten steps, so that they cost little more than likelihood.
EVERY = 10

# A cell's labels, provenance and metrics; with ``overlap`` (see ``reporting.statistics.student``)
# if seeds split the same rows anew.
Row = dict[str, Any]


class Measure(NamedTuple):
    """The measurement of a trained flow."""

    stage: str  #: The name of the stage
    config: Section  #: Its configuration


@dataclass(frozen=True)
class Cell:
    """One training of an experiment and its measurement, or one measurement without data."""

    labels: Mapping[str, str]  #: Its names, by the headings of the table's first columns
    config: Section  #: The configuration of a flow, or of the stage that ``stage`` names
    seed: int
    data: DataConfig | None = None  #: The data; None: the stage needs none
    #: The preprocessing, if it is fitted by a stage of its own
    preprocess: PreprocessFit | None = None
    stage: str = ""  #: The name of the stage of a rival, or without data; empty for a flow
    measure: Measure | None = None  #: The measurement of a trained flow, besides its likelihood
    likelihood: bool = True  #: False if the likelihood of a trained flow is not evaluated
    published: float | None = None  #: The published number of the last column

    @classmethod
    def of_flow(
        cls,
        labels: Mapping[str, str],
        config: DensityConfig,
        published: float | None = None,
        *,
        measure: Measure | None = None,
        likelihood: bool = True,
    ) -> "Cell":
        """Returns the training of a flow, measured by its likelihood, and by ``measure``."""
        preprocess = config.training.preprocess_fit
        flow = labels, config.without_retry, config.seed, config.data, preprocess
        return cls(*flow, published=published, measure=measure, likelihood=likelihood)

    @property
    def title(self) -> str:
        """Labels and seed, which no other cell shares."""
        return f"{' '.join(filter(None, self.labels.values()))}, seed {self.seed}"

    def provenance(self) -> Row:
        """Returns labels, seed, data and the published number."""
        return {
            "labels": dict(self.labels), "seed": self.seed, "published": self.published,
            "data": Path(self.data.source).stem if self.data else "no data",
        }  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A cell that has run."""

    cell: Cell
    #: Its outputs: ``trained`` and ``likelihood`` of a flow, ``measured`` of the stage it names
    folders: Mapping[str, Path]

    @cached_property
    def row(self) -> Row:
        """Provenance and metrics."""
        row = self.cell.provenance()
        if "trained" in self.folders:
            row |= json.loads((self.folders["trained"] / "training.json").read_text())["metrics"]
        for name in ("likelihood", "measured"):
            if name in self.folders:
                row |= json.loads((self.folders[name] / "evaluation.json").read_text())
        return row

    @property
    def log_probs(self) -> Path:
        """The file of the log-densities of rows, by a flow or a peer."""
        from pipelines.density.evaluate import LOG_PROBS  # a plan needs no torch

        return self.folders["measured" if self.cell.stage else "likelihood"] / LOG_PROBS

    def gain(self, reference: "Finished | None", name: str) -> Row:
        """Returns the mean gain over a reference, test row by test row, and its standard error."""
        if reference is None:
            return {}
        ours, theirs = (np.load(one.log_probs)["test"] for one in (self, reference))
        gain = student(ours - theirs)
        return {name: gain.value, f"{name}_se": gain.se}


def decisive(cells: Iterable[Finished]) -> bool:
    """Returns True if all trainings are long enough to decide a claim."""
    return all(one.row["train/steps"] >= DECISIVE_STEPS for one in cells)


class Column(NamedTuple):
    """A metric in the table."""

    metric: str  #: Its key in a row; its standard error over test rows has the key ``METRIC_se``
    heading: str  #: The heading, with its unit
    digits: int = 1  #: Decimals
    #: True if the table shows the interval over seeds, or over rows of a single seed
    interval: bool = True
    #: The perfect value, by whose distance rivals are compared; None: the less the better
    target: float | None = None


STEPS = Column("train/steps", "steps", 0, interval=False)
GAUSSIAN = Column("baseline/gaussian_nll", "Gaussian", interval=False)
NLL = Column("test/nll", "NLL")


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper."""

    about: str  #: The subject of its table; one line
    legend: str  #: The settings that a reader of the table has to know
    cells: Callable[[PaperConfig, int], Iterable[Cell]]  #: Returns the cells of a seed
    columns: tuple[Column, ...]  #: The metrics of the table, after the labels
    #: The paper's data set of images; None if the experiment has its own data
    source: str | None = None
    #: The data that suit it: ``grey images``, ``colour images`` or ``rows of real numbers``; None:
    #: any
    data: str | None = None
    #: The options of ``PaperConfig`` that it uses, besides experiment, scale and name
    uses: frozenset[str] = IMAGE_OPTIONS
    #: Returns the rows of the table; default: one per cell
    rows: Callable[[Sequence[Finished]], list[Row]] = lambda cells: [one.row for one in cells]
    #: Returns figures with captions, by name
    figures: Callable[[Sequence[Row], Sequence[Finished]], dict[str, "Captioned"]] = lambda *_: {}
    #: Returns further tables of the page
    tables: Callable[[Sequence[Row]], Sequence[Table]] = lambda rows: ()
    #: Returns findings, claims and checks
    conclude: Callable[[Sequence[Finished]], Conclusion] = lambda finished: Conclusion()

    def all_cells(self, config: PaperConfig) -> list[Cell]:
        """Returns the cells of all seeds."""
        seeds = range(config.seed, config.seed + config.seeds)
        return [cell for seed in seeds for cell in self.cells(config, seed)]


def choose(config: PaperConfig, cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells that ``CHOICES`` ask for; raises BadInput if there are none."""
    cells = [*cells]
    for label, option in CHOICES.items():
        names = getattr(config, option)
        known = dict.fromkeys(one.labels[label] for one in cells)
        for name in names:
            if name not in known:
                raise BadInput(option=f"--{option}", found=name, expected=" or ".join(known))
        cells = [one for one in cells if not names or one.labels[label] in names]
    return cells


def limits(config: PaperConfig, *, cpu: float, full: int) -> dict[str, Any]:
    """Returns the limits of a training: ``cpu`` seconds or ``full`` steps at these scales.

    The configuration's ``seconds`` replace ``cpu``, its ``steps`` replace ``full``.
    """
    return {
        "smoke": {"steps": SMOKE_STEPS, "max_seconds": None, "validate_every": SMOKE_STEPS},
        "cpu": {"steps": 1_000_000, "max_seconds": config.seconds or cpu},
        "full": {"steps": config.steps or full, "max_seconds": None},
    }[config.scale]


def data(config: PaperConfig, source: str) -> DataConfig:
    """Returns the data that the options ask for, or else the experiment's ``source``."""
    sizes = config.model_dump(include={"validation", "test", "rows"})
    return DataConfig(source=config.source or source, **sizes)


def tables(config: PaperConfig, default: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns the user's tables by their names; raises BadInput if there is none, or two alike."""
    sources = config.sources or default
    names = {Path(source).stem: source for source in sources}
    if not sources or len(names) < len(sources):
        expected = "one or more tables with different names"
        raise BadInput(option="--sources", found=" ".join(sources) or "none", expected=expected)
    return names


def rival(
    config: PaperConfig, seed: int, name: str, *, cpu: float, full: int, pattern: str = ""
) -> RivalConfig:
    """Returns the configuration of a rival with the limits that the options ask for."""
    bounds = limits(config, cpu=cpu, full=full)
    return RivalConfig(
        rival=name, pattern=pattern, seed=seed, threads=config.threads,
        seconds=bounds["max_seconds"], steps=bounds["steps"],
    )  # fmt: skip


def base(
    config: PaperConfig,
    seed: int,
    source: str,
    *,
    cpu: float,
    full: int,
    recipe: Callable[[], DensityConfig] = mnist9k_dense,
    **train: Any,  # noqa: ANN401
) -> DensityConfig:
    """Returns a recipe with the data, limits and workers that the options ask for.

    ``train`` changes its optimization; the limits override these changes.
    """
    train = {"threads": config.threads, **train, **limits(config, cpu=cpu, full=full)}
    return recipe().changed(
        seed=seed, data=data(config, source), train=train, cluster=config.cluster
    )
