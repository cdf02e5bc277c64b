"""Test NLL of densities against the seconds in which one core fitted them: a curve per method.

    python docs/measurements/curves.py tables/magic.parquet tables/gaia.parquet --seconds 3 10 30

Every method sees the same rows: 80 % train, 10 % choose, 10 % test. All are densities of the same
values: a column on a grid has uniform noise of its step, and others with repeated values are left
out. For each number of seconds a method starts anew. zuko's flows get LU layers between their
transforms, and two learning rates, each for half of the seconds; validation chooses. Writes
``curves.json``, prints a table, and draws ``docs/figures/curves.png``.

Runs with other methods or seconds can follow: ``--earlier`` adds their results to the figure.

With several ``--seeds``, each splits the rows anew, and the table has the lead of ebflow over the
best other method of each seed. Its 95 % intervals allow for splits that overlap. With ``--cpu``
seconds are those of the processor, so that other work on the machine costs no steps. "ebflow with
trees" is the default flow of 70 % of the seconds, which boosted trees then refine. "ebflow,
integers as they are" sees no noise: its exact probabilities of integers are densities on cells of
size 1, which the others model. Use it for tables of integers alone.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import zuko
from scipy import stats
from torch import Tensor
from zuko.lazy import UnconditionalTransform
from zuko.transforms import LULinearTransform

import ebflow
from ebflow import preprocessing
from ebflow.flow import Flow
from ebflow.randomness import RowGenerator, generator
from ebflow.tables.rows import Rows
from pipelines.paper import fits, peer
from pipelines.paper.config import RivalConfig
from pipelines.reporting.style import panels

FIGURE = Path(__file__).parents[1] / "figures" / "curves.png"
STYLES = ("o-", "s--", "^-.", "v:", "d:", "P-", "X-")
RATES = (1e-3, 5e-3)  # Learning rates of zuko's flows
EXACT = "ebflow, integers as they are"
OURS = {"ebflow", "ebflow with trees", EXACT}
FLOWS = {"MAF": zuko.flows.MAF, "NSF": zuko.flows.NSF}


class Table(NamedTuple):
    """Rows of a table, with shape (N, D), in float64."""

    train: Tensor
    validation: Tensor
    test: Tensor


Density = Callable[[Tensor], Tensor]
"""The log-density of rows, with shape (N,)."""


class Outcome(NamedTuple):
    """NLL in nats of the validation rows, and of the test rows with its standard error."""

    chosen_by: float
    nll: float
    error: float


def split(path: Path, seed: int, *, noisy: bool = True) -> Table:
    """Returns the splits of a table, by default with noise in the columns on grids.

    Others are left out if most rows, or 1 % of them, share values: they have no density.
    """
    values = pd.read_parquet(path).select_dtypes("number").dropna().to_numpy(float, copy=True)
    noise, repeats = generator(seed, "curves", "grid"), []
    for column in values.T:
        levels, counts = np.unique(column, return_counts=True)
        steps = np.diff(levels)
        grid = np.allclose(steps / steps.min(), np.round(steps / steps.min()), atol=1e-6)
        repeats.append(
            not grid and (2 * len(levels) < len(column) or 100 * max(counts) > len(column))
        )
        if noisy and grid:
            column += steps.min() * torch.rand(len(column), generator=noise).double().numpy()
    values = values[:, ~np.array(repeats)]
    order = torch.randperm(len(values), generator=generator(seed, "curves", "split"))
    first, second = int(0.8 * len(values)), int(0.9 * len(values))
    return Table(*torch.from_numpy(values)[order].tensor_split((first, second)))


def outcome(log_prob: Density, table: Table) -> Outcome:
    """Returns the NLL of a fitted density."""
    held_out, test = -log_prob(table.validation).double(), -log_prob(table.test).double()
    return Outcome(
        float(held_out.mean()), float(test.mean()), float(test.std()) / len(test) ** 0.5
    )


def of_ebflow(table: Table, seconds: float, seed: int) -> Density:
    """Fits the default flow."""
    return ebflow.fit(
        table.train, validation=(table.validation,), max_seconds=seconds, seed=seed, progress=False
    ).log_prob


def of_refined(table: Table, seconds: float, seed: int) -> Density:
    """Fits the default flow, and refines it by boosted trees of some of its rows."""
    flow = ebflow.fit(
        table.train, validation=(table.validation,), max_seconds=peer.SHARE * seconds, seed=seed,
        progress=False,
    )  # fmt: skip
    chosen = torch.randperm(len(table.train), generator=generator(seed, "curves", "trees"))
    return ebflow.refine(flow, table.train[chosen[: peer.ROWS]], seed=seed).log_prob


def of_mixture(table: Table, seconds: float, seed: int) -> Density:
    """Fits mixtures of Gaussians with more and more components."""
    config = RivalConfig(rival="gmm", seed=seed, seconds=seconds)
    front = _front(table, tails=False)
    rows, held_out = (_through(front, part) for part in table[:2])
    best, _ = fits.mixture(rows.y.numpy(), lambda model: -model.score(held_out.y.numpy()), config)
    return _density(front, lambda y: torch.from_numpy(best.score_samples(y.numpy())))


def of_zuko(table: Table, seconds: float, seed: int, name: str, *, tails: bool) -> Density:
    """Fits a flow of zuko with each learning rate; validation chooses.

    ``tails`` puts ebflow's treatment of bounds and tails of columns before it.
    """
    front = _front(table, tails=tails)
    rates = (_zuko(table, front, seconds / len(RATES), seed, name, rate) for rate in RATES)
    return max(rates, key=lambda density: float(density(table.validation).mean()))


def _zuko(table: Table, front: Flow, seconds: float, seed: int, name: str, rate: float) -> Density:
    config = RivalConfig(rival=name, seed=seed, seconds=seconds)
    width, noise = table.train.shape[1], generator(seed, "curves", name)
    network = fits.created(lambda: with_lu(FLOWS[name](width, **fits.SIZES), width), config)
    rows, held_out = (_through(front, part).y.float() for part in table[:2])

    def loss() -> Tensor:
        some = torch.randint(len(rows), (fits.BATCH,), generator=noise)
        return -network().log_prob(rows[some]).mean()

    fits.train(network, loss, lambda: -float(network().log_prob(held_out).mean()), config, rate)
    values = torch.no_grad()(lambda y: network().log_prob(y.float()))
    return _density(front, values)


def with_lu(flow: zuko.lazy.Flow, width: int) -> zuko.lazy.Flow:
    """Puts a trainable linear layer, as its LU factors, before each transform but the first."""
    layers = [flow.transform.transforms[0]]
    for layer in flow.transform.transforms[1:]:
        layers += [UnconditionalTransform(LULinearTransform, torch.eye(width)), layer]
    return zuko.lazy.Flow(layers, flow.base)


class Preprocessed(NamedTuple):
    """Rows after a preprocessing, and the log-determinant of its Jacobian."""

    y: Tensor
    log_det: Tensor


def _front(table: Table, *, tails: bool) -> Flow:
    """Returns the preprocessing of zuko's flows and mixtures, as a flow without layers."""
    fitted = preprocessing.fit(Rows(table.train), normalize="standardize", tails=tails)
    return Flow((table.train.shape[1],), []).double().preprocessed(fitted).eval()


@torch.no_grad()
def _through(front: Flow, x: Tensor) -> Preprocessed:
    y = front.preprocess(x, generator=RowGenerator(0, "curves"))
    return Preprocessed(y, front.log_prob(x) - front.base.log_prob(y))


def _density(front: Flow, values: Density) -> Density:
    def log_prob(x: Tensor) -> Tensor:
        y, log_det = _through(front, x)
        return values(y).double() + log_det

    return log_prob


METHODS: dict[str, Callable[[Table, float, int], Density]] = {
    "ebflow": of_ebflow,
    "Gaussian mixture": of_mixture,
    "MAF with LU": partial(of_zuko, name="MAF", tails=False),
    "NSF with LU": partial(of_zuko, name="NSF", tails=False),
    "NSF with LU, our columns": partial(of_zuko, name="NSF", tails=True),
    "ebflow with trees": of_refined,
    EXACT: of_ebflow,
}


Result = tuple[str, str, float, int, Outcome]
"""The table, method, seconds, seed and outcome of a fit."""


def measure(job: tuple[Path, str, float, int], *, cpu: bool) -> Result:
    """Fits one density within some seconds of one core."""
    path, method, seconds, seed = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if cpu:
        time.perf_counter = time.process_time  # the clock of all methods
    table = split(path, seed, noisy=method != EXACT)
    start = time.perf_counter()
    density = METHODS[method](table, seconds, seed)
    fit = f"{path.stem}, {method}, {time.perf_counter() - start:.1f} of {seconds:g} s, seed {seed}"
    found = outcome(density, table)
    print(f"{fit}: {found.nll:.3f} ± {found.error:.3f}", flush=True)
    return path.stem, method, seconds, seed, found


def lead(results: Sequence[Result], name: str, seconds: float, own: str) -> str:
    """Returns a flow's mean lead over the best other method of each seed, and its interval."""
    of_table = [row for row in results if (row[0], row[2]) == (name, seconds)]
    leads = []
    for seed in sorted({row[3] for row in of_table}):
        nlls = {row[1]: row[4].nll for row in of_table if row[3] == seed}
        leads.append(min(nlls[m] for m in nlls.keys() - OURS) - nlls[own])
    overlap = 1 / 8  # test rows over training rows (Nadeau and Bengio, 2003)
    spread = np.std(leads, ddof=1) * (1 / len(leads) + overlap) ** 0.5
    half = spread * stats.t.ppf(0.975, len(leads) - 1)
    return f"{np.mean(leads):.3f} ± {half:.3f} ({', '.join(f'{one:.3f}' for one in leads)})"


def draw(results: Sequence[Result], figure: Path) -> None:
    """Draws a panel for each table, and a curve for each method."""
    names = [*dict.fromkeys(table for table, *_ in results)]
    drawn, axes = panels(2, 7, 6.4, down=-(-len(names) // 2), squeeze=False)
    for name, axis in zip(names, axes.flat, strict=False):
        of_table = [row for row in results if row[0] == name]
        for method, style in zip(METHODS, STYLES, strict=True):
            points = sorted((s, o.nll) for _, m, s, _, o in of_table if m == method)
            if points:
                axis.plot(*zip(*points, strict=True), style, markersize=4, label=method)
        nlls = sorted(o.nll for *_, o in of_table)
        shown = nlls[2 * len(nlls) // 3]  # the worst would hide the others
        margin = 0.08 * (shown - nlls[0])
        axis.set(title=name, xscale="log", ylim=(nlls[0] - margin, shown + margin))
        seconds = sorted({row[2] for row in of_table})
        axis.set_xticks(seconds, [f"{s:g} s" for s in seconds])
        axis.minorticks_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("test NLL (nats)")
    drawn.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    drawn.savefig(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, nargs="+", help="Parquet files")
    parser.add_argument("--seconds", type=float, nargs="+", default=(3, 10, 30, 100))
    parser.add_argument("--methods", nargs="+", default=[*METHODS][:5], choices=[*METHODS])
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="count seconds of the processor")
    parser.add_argument("--workers", type=int, default=2, help="fits at a time, on a core each")
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], help="outputs to draw too")
    parser.add_argument("--output", type=Path, default=Path("curves.json"))
    options = parser.parse_args()
    if options.earlier and (options.seeds > 1 or options.output in options.earlier):
        parser.error("--earlier needs one seed, and another file than --output")
    earlier = [row for path in options.earlier for row in json.loads(path.read_text())]
    seeds = range(options.seed, options.seed + options.seeds)
    jobs = [*product(options.tables, options.methods, options.seconds, seeds)]
    jobs.sort(key=lambda job: (-job[2], job[3]))
    with ProcessPoolExecutor(options.workers) as pool:
        measured = [*pool.map(partial(measure, cpu=options.cpu), jobs)]
    options.output.write_text(json.dumps([(*key, found._asdict()) for *key, found in measured]))
    print("| table | method | " + " | ".join(f"{s:g} s" for s in options.seconds) + " |")
    for name, method in product(options.tables, options.methods):
        own = [row for row in measured if row[:2] == (name.stem, method)]
        cells = [np.mean([row[4].nll for row in own if row[2] == s]) for s in options.seconds]
        print(f"| {name.stem} | {method} | " + " | ".join(f"{nll:.2f}" for nll in cells) + " |")
    if options.seeds == 1:
        measured += [(*key, Outcome(**found)) for *key, found in earlier]
        draw(measured, FIGURE)
    else:
        ours = sorted(OURS.intersection(options.methods))
        for name, seconds, own in product(options.tables, options.seconds, ours):
            found = lead(measured, name.stem, seconds, own)
            print(f"{name.stem}, {seconds:g} s: {own} leads by {found}")
