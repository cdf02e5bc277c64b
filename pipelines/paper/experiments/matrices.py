"""Free against triangular matrices in a net for 512 modes in ten dimensions, by likelihood."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from pipelines.config import (
    AnchorConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import (
    STEPS,
    STEPS_PER_S,
    Cell,
    Column,
    Experiment,
    Folders,
    Row,
)
from pipelines.paper.experiments.curves import validations
from pipelines.paper.experiments.settings import bounds
from pipelines.reporting.style import panels

STRUCTURES = ("full", "tril", "triu", "trilu")
LENGTH, EVERY = 10_001, 100


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a structure; the last three change nothing but the masks."""
    train = TrainConfig(
        batch_size=2048, lr=1e-3, schedule="constant", warmup=0.0, ema_decay=0.0, clip=500.0,
        dtype="float64", validate_every=EVERY, threads=1,
    )  # fmt: skip
    for structure in STRUCTURES:
        flow = DensityConfig(
            seed=seed,
            data=DataConfig(source="multimodal10"),
            preprocess=PreprocessConfig(normalise="none", logit=None),
            model=ModelConfig(architecture="structured", structure=structure),
            objective=ObjectiveConfig(name="ml"),
            anchor=AnchorConfig(weight=0.0),
            train=train.changed(**bounds(config, cpu=40, full=LENGTH)),
        )
        yield Cell.of_flow({"matrices": structure}, flow)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the validation NLL against steps."""
    figure, axis = panels(width=6, height=3.6)
    for row, (trained, _) in zip(rows, folders, strict=True):
        found = validations(trained)
        steps = [step["step"] for step in found]
        nll = [step["metrics"]["val/nll"] for step in found]
        structure = row["labels"]["matrices"]
        label = structure if row["seed"] == rows[0]["seed"] else None
        axis.plot(steps, nll, color=f"C{STRUCTURES.index(structure)}", lw=1, label=label)
    axis.set(xlabel="step", ylabel="validation NLL (nats)", title="matrices of the 10-D net")
    axis.set_ylim(top=_top(rows))
    axis.legend()
    return {"matrices": figure}


def _top(rows: Sequence[Row]) -> float:
    """Returns an upper limit that shows how trainings end rather than how they begin."""
    ends = [row["test/nll"] for row in rows]
    return max(ends) + 2 * (max(ends) - min(ends) + 1)


MATRICES = Experiment(
    about="test NLL (nats) of 512 modes in ten dimensions, by the structure of the matrices",
    legend="by exact ML with a Gaussian base; the paper's code has a Laplace one",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    columns=(
        STEPS,
        STEPS_PER_S,
        Column("test/nll", "NLL", 3, "nll"),
    ),
    figures=figures,
)
