"""Synthetic rows of tables, by flows and by other packages at equal seconds.

Each model is fitted to the training and validation rows, as its users do, and gives as many rows.
``ebflow`` is a flow that is refined by boosted trees, ``flow alone`` one that is not. ``gmm`` is
scikit-learn's mixture of Gaussians of numbers and one-hot categories; validation chooses its
size. ``ctgan`` and ``tvae`` are those of the package ``ctgan``: an epoch is timed first, and then
as many are trained as fit into the seconds.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from ebflow.checks import check
from ebflow.errors import BadInput
from ebflow.fitting import fit
from ebflow.flow import Flow
from ebflow.randomness import generator
from ebflow.refinement import refine
from ebflow.tables import Columns
from pipelines.data.dataset import Dataset
from pipelines.paper import fits
from pipelines.paper.config import RivalConfig
from pipelines.tracking.run import StageRun

ROWS = 100_000  # Rows of a check at most
SHARE = 0.8  # Share of the seconds in which a flow is fitted that is then refined

# Figures of a check by the names of metrics.
FIGURES = {
    "c2st": "C2ST", "shapes": "column shapes", "trends": "pair trends",
    "prediction": "prediction", "copies": "nearer to a training row",
}  # fmt: skip


def synthesize(config: RivalConfig, data: Path, *, run: StageRun) -> None:
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
    rows = SAMPLERS[config.rival](config, train, columns)
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


def _refined(config: RivalConfig, train: pa.Table, columns: Columns) -> pa.Table:
    model = refine(_fitted(config, train, SHARE), train, seed=config.seed)
    return model.sample(len(train), generator=generator(config.seed, "synthesis"))


def _flow(config: RivalConfig, train: pa.Table, columns: Columns) -> pa.Table:
    flow = _fitted(config, train, 1.0)
    return flow.sample(len(train), generator=generator(config.seed, "synthesis"))


def _fitted(config: RivalConfig, train: pa.Table, share: float) -> Flow:
    """Returns a flow that is fitted in a share of the seconds."""
    seconds = None if config.seconds is None else share * config.seconds
    limits = {"max_seconds": seconds, "steps": config.steps}
    return fit(train, **limits, seed=config.seed, progress=False)


def _mixture(config: RivalConfig, train: pa.Table, columns: Columns) -> pa.Table:
    """Returns rows of a mixture of Gaussians; the likeliest levels, and numbers as rounded."""
    x = columns.one_hot(columns.encode(train))
    mean, scale = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1.0)
    shuffled = np.random.default_rng(config.seed).permutation((x - mean) / scale)
    z, held_out = np.split(shuffled, [9 * len(x) // 10])
    best, _ = fits.mixture(z, lambda one: -one.score(held_out), config, floor=1e-3)
    codes = columns.from_one_hot(best.sample(len(train))[0] * scale + mean)
    return columns.decode(codes)


def _neural(name: str, config: RivalConfig, train: pa.Table, columns: Columns) -> pa.Table:
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


SAMPLERS: dict[str, Callable[[RivalConfig, pa.Table, Columns], pa.Table]] = {
    "ebflow": _refined,
    "flow alone": _flow,
    "gmm": _mixture,
    "ctgan": lambda *args: _neural("CTGAN", *args),
    "tvae": lambda *args: _neural("TVAE", *args),
}
