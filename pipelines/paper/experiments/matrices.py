"""Free against triangular matrices in a net for 512 modes in ten dimensions, by likelihood."""

from collections.abc import Iterator

from pipelines.config import DensityConfig, ModelConfig, ObjectiveConfig
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import STEPS, STEPS_PER_S, Cell, Column, Experiment
from pipelines.paper.experiments.settings import PLAIN, RAW, base

STRUCTURES = ("full", "tril", "triu", "trilu")
LENGTH, EVERY = 10_001, 100


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a structure; the last three change nothing but the masks."""
    common = base(
        config, seed, "multimodal10", cpu=40, full=LENGTH, recipe=DensityConfig,
        batch_size=2048, lr=1e-3, schedule="constant", warmup=0.0, ema_decay=0.0, clip=500.0,
        dtype="float64", validate_every=EVERY, threads=1,
    )  # fmt: skip
    for structure in STRUCTURES:
        flow = common.changed(
            preprocess=RAW.changed(logit=None),
            model=ModelConfig(architecture="structured", structure=structure),
            objective=ObjectiveConfig(name="ml"),
            anchor=PLAIN,
        )
        yield Cell.of_flow({"matrices": structure}, flow)


MATRICES = Experiment(
    about="test NLL (nats) of 512 modes in ten dimensions, by the structure of the matrices",
    legend="by exact ML with a Gaussian base; the paper's code has a Laplace one",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    columns=(STEPS, STEPS_PER_S, Column("test/nll", "NLL", 3, "baseline/{}_nll")),
)
