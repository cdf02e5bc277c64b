"""Finite classes: what empirical risk minimization chooses, and how far that is off."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import errors
from ebflow.complexity.classes import (
    cumulative_losses,
    erm,
    far_class,
    shift_losses,
    shifts,
)
from ebflow.complexity.closed_forms import step_height, tail, worst_eta
from ebflow.complexity.instances import (
    Instance,
    Score,
    Stratified,
    far_mode,
    gaussian,
    step_score,
)
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import (
    CellConfig,
    ClassCell,
    FiniteCell,
    StepCell,
    TwoPointCell,
)
from pipelines.sample_complexity.rows import frame, geometric

SHARES = (0.25, 0.5, 1.0, 2.0, 3.0)
"""The m of the class of two, over the inverse of η."""

FIRST, RATIO, REACH = 2, 1.1, 4.0
"""The grid of m: from 2 on, in steps of a tenth, to 4 over the rarest mass.

That is more than three times where the far mode decides, and one set in 50 has no far sample.
"""

TEST = 2000
"""Test points of each component."""

NUMBERS = 1 << 22
"""Most numbers of a batch of trials: 32 MiB."""


Chosen = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From noisy samples with shape (T, N, D), of T training sets, their labels, and what breaks ties,
to the indices of hypotheses, with shape (T, sizes).
"""


def _rows(
    cell: CellConfig,
    panel: str,
    truth: Instance,
    sizes: Sequence[int],
    chosen: Chosen,
    summaries: dict[str, Tensor],
    right: int,
    width: int = 1,
    **constants: float,
) -> pd.DataFrame:
    """Returns a row for every training set and m: the errors of what was chosen.

    Arguments:
        cell: The cell.
        panel: Its name in the rows.
        truth: What is drawn from.
        sizes: The m.
        chosen: The learner.
        summaries: The errors of every hypothesis, each with shape (H,).
        right: The index of the truth.
        width: Numbers of a sample besides its own, by which sets are drawn in batches.
        constants: Further columns.
    """
    n, last = sizes[-1], torch.as_tensor(sizes) - 1
    most = max(1, NUMBERS // (n * max(truth.clean.size, width)))
    parts = []
    for seeds in torch.arange(cell.first, cell.first + cell.count).split(most):
        noise = derive(cell.seed, panel, repr(cell), int(seeds[0]))
        clean, z, component = truth.sample(len(seeds) * n, generator=noise)
        x, y = (part.view(len(seeds), n, -1) for part in truth.noisy(clean, z))
        index = chosen(x, y, noise).flatten()
        n_far = component.view(len(seeds), n).cumsum(1)[:, last]
        parts.append(frame({
            "panel": panel, "learner": "finite", "epsilon": cell.epsilon, **constants,
            "m": torch.tensor(sizes).repeat(len(seeds)),
            "seed": seeds.repeat_interleave(len(sizes)),
            "n_far": n_far.flatten(), "wrong": index != right,
            **{column: values[index] for column, values in summaries.items()},
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _summaries(
    hypotheses: Sequence[Score], truth: Instance, test: Stratified, deltas: Sequence[float]
) -> dict[str, Tensor]:
    """Returns the errors of every hypothesis."""
    exact = truth.smoothed.score(test.noisy)
    gaps = torch.stack([hypothesis(test.noisy) - exact for hypothesis in hypotheses])
    return errors.summary(truth.sigma * gaps.norm(dim=-1), test, deltas)


def _test(truth: Instance, seed: int) -> Stratified:
    return truth.stratified(TEST, generator=derive(seed, "test"))


def _by_losses(hypotheses: Sequence[Score], sizes: Sequence[int]) -> Chosen:
    def chosen(x: Tensor, y: Tensor, chance: torch.Generator) -> Tensor:
        return erm(cumulative_losses(hypotheses, x, y, sizes), generator=chance)

    return chosen


def two_point(cell: TwoPointCell) -> pd.DataFrame:
    """Returns how often the far mode is sought on the wrong side."""
    eta = worst_eta(cell.ratio, cell.epsilon)
    truth, wrong = (far_mode(side * cell.ratio, eta) for side in (1, -1))
    laws = [truth.smoothed.score, wrong.smoothed.score]
    sizes = [max(1, round(share / eta)) for share in SHARES]
    summaries = _summaries(laws, truth, _test(truth, cell.seed), (2 * eta,))
    summaries["sigma_d"] = summaries.pop(f"sigma_d_{2 * eta:g}")
    return _rows(
        cell, "two points", truth, sizes, _by_losses(laws, sizes), summaries, 0,
        ratio=cell.ratio, eta=eta,
    )  # fmt: skip


def finite(cell: FiniteCell) -> pd.DataFrame:
    """Returns the errors of the best of 45 laws, for bulks and places of the far mode."""
    eta = cell.eta or worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=cell.size)
    mixtures = far_class(truth, generator=derive(cell.seed, "class", cell.size))
    laws = [mixture.score for mixture in mixtures]
    sizes = geometric(FIRST, REACH / eta, RATIO)
    summaries = _summaries(laws, truth, _test(truth, cell.seed), cell.deltas)
    right = int(summaries["sigma_l2"].argmin())
    name = "finite" if cell.eta is None else "transition"
    return _rows(
        cell, name, truth, sizes, _by_losses(laws, sizes), summaries, right,
        ratio=cell.ratio, size=cell.size, hypotheses=len(laws), eta=eta,
    )  # fmt: skip


def classes(cell: ClassCell) -> pd.DataFrame:
    """Returns the errors of the best pair: a side of the far mode, and a shift across it.

    Laws are products of one on the first axis and a Gaussian on the ``size`` others, so that the
    losses of a pair add up, and each part is chosen by itself.
    """
    eta = worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=1 + cell.size)
    line = [far_mode(side * cell.ratio, eta).smoothed.score for side in (1, -1)]
    radius = 2 * cell.epsilon / truth.sigma
    noise = derive(cell.seed, "shifts", cell.size)
    count, like = cell.hypotheses // 2, truth.clean.means
    moved = shifts(count, cell.size, radius, generator=noise, like=like)
    moved[0] = 0
    sizes = geometric(FIRST, REACH / eta, RATIO)

    def chosen(x: Tensor, y: Tensor, chance: torch.Generator) -> Tensor:
        first, others = (part.split([1, cell.size], -1) for part in (x, y))
        side = cumulative_losses(line, first[0], others[0], sizes)
        shift = shift_losses(moved, first[1], others[1], sizes)
        wrong = erm(shift, generator=chance) > 0
        return 2 * erm(side, generator=chance) + wrong

    summaries = _pairs(line, radius, truth, cell)
    width = 1 + len(moved) * len(sizes) // sizes[-1] + 2 * cell.size
    return _rows(
        cell, "classes", truth, sizes, chosen, summaries, 0, width=width,
        ratio=cell.ratio, size=1 + cell.size, hypotheses=2 * len(moved), eta=eta,
    )  # fmt: skip


def _pairs(
    line: Sequence[Score], radius: float, truth: Instance, cell: ClassCell
) -> dict[str, Tensor]:
    """Returns the errors of the four kinds of pairs: the side right or wrong × the shift."""
    test = _test(truth, cell.seed)
    first = test.noisy[:, :1]
    side = (line[1](first) - line[0](first)).norm(dim=-1)
    squares = [a + b for a in (0 * side, side**2) for b in (0.0, radius**2)]
    return errors.summary(truth.sigma * torch.stack(squares).sqrt(), test, cell.deltas)


def steps(cell: StepCell) -> pd.DataFrame:
    """Returns how often a score with a step in it is chosen for that of N(0, 1)."""
    height, mass = step_height(cell.at, cell.epsilon), tail(cell.at)
    truth = gaussian()
    scores = [truth.smoothed.score, step_score(height, cell.at)]
    sizes = geometric(FIRST, REACH / mass, RATIO)
    summaries = _summaries(scores, truth, _test(truth, cell.seed), ())
    return _rows(
        cell, "steps", truth, sizes, _by_losses(scores, sizes), summaries, 0,
        size=1, hypotheses=2, eta=mass, height=height,
    )  # fmt: skip
