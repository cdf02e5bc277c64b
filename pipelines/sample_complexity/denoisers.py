"""Denoisers of laws that look like data: their errors at every noise, and what they sample.

One network knows all noises, and samples by the probability flow; it is measured after several
lengths of its training. Columns besides those of every table: ``law``, ``eta`` (the weight of a
mode that was implanted; 0: none), ``n_far`` (training samples of it), at the least noise and
√D-fold the errors of ``ebflow.complexity.errors.measures``, ``by_level_l2`` and ``by_level_d``,
level by level; and of samples ``excess`` (their mean −log q above that of true samples, nats),
``tv`` (of the frequencies of components), ``w2`` (sliced), ``far_error`` (of the implanted mode's
weight) and ``copied``: the share that lies nearer to a training sample than all but 1 % of true
samples do.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ebflow.complexity import laws
from ebflow.complexity.denoisers import Draws, looks
from ebflow.complexity.errors import Denoiser, denoising_errors
from ebflow.complexity.residual import ResidualDenoisers, UNetDenoisers
from ebflow.complexity.samplers import Scores, ladder, probability_flow
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import over_levels, share, table
from pipelines.sample_complexity.config import DenoiserCell

LEAST, WIDEST = 0.2, 20.0
"""The noises, in units of the deviation of a feature."""

TEST = 100
"""Test points of each component at every level."""

SLICES = 16
"""Directions of sliced distances."""

TOGETHER = 10_000
"""Training samples that distances to are taken at once."""

NEAR = 0.01
"""The share of true samples that are as near to a training sample as copies are."""

RATES = {"residual": 2e-3, "unet": 5e-3}
"""The rate of training at its start."""

MISSING = "the law without the mode"
"""What rows call the exact denoiser of that."""

LEARNERS = {"residual": "residual networks", "unet": "U-Nets"}
"""What rows call them."""

Nets = ResidualDenoisers | UNetDenoisers


class Sets(NamedTuple):
    """Nested training sets, and which of them each network has.

    Attributes:
        clean: x₀ with shape (S, N, D).
        rare: Whether each is of the implanted mode, with shape (S, N).
        owner: The set of every network, with shape (E,).
        sizes: The m of every network, with shape (E,).
    """

    clean: Tensor
    rare: Tensor
    owner: Tensor
    sizes: Tensor

    def of(self, network: int) -> Tensor:
        """Returns the training samples of a network, with shape (m, D)."""
        return self.clean[self.owner[network], : self.sizes[network]]


def denoisers(cell: DenoiserCell) -> pa.Table:
    """Returns the errors and samples of every network, and those of the exact score."""
    plain = load(cell.law)
    truth = plain.with_rare(cell.eta, distance=cell.distance) if cell.eta else plain
    seeds = torch.arange(cell.first, cell.first + cell.count)
    sets, levels = _drawn(cell, truth, seeds), ladder(WIDEST, LEAST, cell.levels)
    true = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "true"))
    nets = _networks(cell, sets)
    near = [_near(true, sets.of(index)) for index in range(nets.count)]
    parts = []
    for step in _training(cell, nets, sets):
        x = _samples(cell, nets.at, truth, levels, nets.count)
        copied = [_copied(rows, sets.of(index), near[index]) for index, rows in enumerate(x)]
        parts.append(table(
            len(sets.owner), **_constants(cell, truth), learner=LEARNERS[cell.net],
            sampler="probability flow", m=sets.sizes, seed=seeds[sets.owner], step=step,
            n_far=sets.rare.cumsum(1)[sets.owner, sets.sizes - 1], copied=copied,
            **_errors(cell, truth, lambda x, sigma: nets.denoise(x.float(), sigma), levels),
            **_quality(cell, truth, true, x),
        ))  # fmt: skip
    if cell.net == "residual":
        parts += _floors(cell, truth, true, levels)
        if cell.eta:
            parts.append(_missing(cell, truth, plain, levels))
    return pa.concat_tables(parts, promote_options="default")


def _noise(cell: DenoiserCell, name: str) -> torch.Generator:
    return derive(cell.seed, "truths", name, cell.law, cell.first)


def _floors(
    cell: DenoiserCell, truth: Truth, true: Tensor, levels: list[float]
) -> Iterator[pa.Table]:
    """Gives what samples of the exact score, and true ones, are off."""
    again = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "floors"))
    found = {
        ("exact score", "probability flow"): _samples(cell, truth.smoothed, truth, levels),
        ("true samples", "none"): again[None],
    }
    for (learner, sampler), rows in found.items():
        yield table(
            1, **_constants(cell, truth), learner=learner, sampler=sampler, seed=cell.first,
            **_quality(cell, truth, true, rows),
        )  # fmt: skip


def _missing(cell: DenoiserCell, truth: Truth, plain: Truth, levels: list[float]) -> pa.Table:
    """Returns the errors of the exact denoiser of the law without the implanted mode."""
    found = _errors(cell, truth, lambda x, sigma: plain.denoise(x, sigma)[None], levels)
    return table(1, **_constants(cell, truth), learner=MISSING, seed=cell.first, **found)


def _constants(cell: DenoiserCell, truth: Truth) -> dict[str, Any]:
    return {"panel": "truths", "law": cell.law, "size": truth.clean.size, "eta": cell.eta}


def _drawn(cell: DenoiserCell, truth: Truth, seeds: Tensor) -> Sets:
    """Draws a set for each seed as it comes: nested in m, the same whoever else is drawn."""
    found = [
        truth.clean.sample_with_components(
            max(cell.sizes), generator=derive(cell.seed, "truths", cell.law, int(index))
        )
        for index in seeds
    ]
    clean, component = (torch.stack(part) for part in zip(*found, strict=True))
    rare = (component == len(truth.clean.weights) - 1) & (truth.rare > 0)
    owner = torch.arange(len(seeds)).repeat_interleave(len(cell.sizes))
    return Sets(clean.float(), rare, owner, torch.tensor(cell.sizes).repeat(len(seeds)))


def _networks(cell: DenoiserCell, sets: Sets) -> Nets:
    shape = len(sets.owner), sets.clean.shape[2]
    options = {"width": cell.width, "generator": _noise(cell, f"start {cell.net}")}
    if cell.net == "unet":
        return UNetDenoisers(*shape, **options)
    return ResidualDenoisers(*shape, blocks=cell.blocks, **options)


def _training(cell: DenoiserCell, nets: Nets, sets: Sets) -> Iterator[int]:
    draws = Draws(sets.clean, sets.owner, sets.sizes, _noise(cell, f"train {cell.net}"))
    return looks(
        nets, draws, lengths=cell.lengths, least=LEAST, highest=WIDEST, rows=cell.batch,
        lr=RATES[cell.net],
    )  # fmt: skip


def _errors(
    cell: DenoiserCell, truth: Truth, denoise: Denoiser, levels: list[float]
) -> dict[str, Tensor]:
    """Returns the columns of errors, each with shape (E,) or (E, levels)."""
    deltas = cell.delta, share(cell.delta, len(levels))
    found = [
        denoising_errors(denoise, truth, sigma, points=TEST, deltas=deltas,
                         generator=derive(cell.seed, "test", f"{sigma:g}"))
        for sigma in levels
    ]  # fmt: skip
    by_level = {
        "by_level_l2": torch.stack([one["sigma_l2"] for one in found], -1),
        "by_level_d": torch.stack([one[f"sigma_d_{cell.delta:g}"] for one in found], -1),
    }
    return {**found[-1], **over_levels(found, cell.delta), **by_level}


def _samples(
    cell: DenoiserCell, scores: Scores, truth: Truth, levels: list[float], count: int = 0
) -> Tensor:
    """Returns samples of so many networks, or of the exact score, with shape (E or 1, n, D).

    They begin at the smoothed law itself, drawn exactly: what they are off by is the score's.
    """
    rows = max(1, count) * cell.samples
    x = truth.sample(rows, sigma=levels[0], generator=_noise(cell, "samples"))
    if not count:
        return probability_flow(scores, x, levels=levels)[None]
    x = x.float().view(count, cell.samples, -1)
    return probability_flow(scores, x, levels=levels).double()


def _quality(cell: DenoiserCell, truth: Truth, true: Tensor, x: Tensor) -> dict[str, list[float]]:
    """Returns how far samples with shape (E, n, D) are from the law, column by column."""
    law = truth.smoothed(LEAST)
    entropy = float(-law.log_prob(true).mean())
    distances: dict[str, list[float]] = {"excess": [], "tv": [], "w2": [], "far_error": []}
    for rows in x:
        masses = torch.bincount(law.responsibilities(rows).argmax(0), minlength=len(law.weights))
        gaps = masses / len(rows) - law.weights
        directions = derive(cell.seed, "slices")
        distances["excess"].append(float(-law.log_prob(rows).mean()) - entropy)
        distances["tv"].append(float(0.5 * gaps.abs().sum()))
        distances["w2"].append(laws.sliced(rows, law, SLICES, directions)[1])
        distances["far_error"].append(float(gaps[-1].abs()) if truth.rare else float("nan"))
    return distances


def _copied(x: Tensor, training: Tensor, near: Tensor) -> float:
    """Returns the share of samples that are nearer to a training sample than so much."""
    return float((_distance(x, training) < near).double().mean())


def _near(true: Tensor, training: Tensor) -> Tensor:
    """Returns what all but 1 % of true samples are further from training ones than."""
    return _distance(true, training).quantile(NEAR)


def _distance(x: Tensor, training: Tensor) -> Tensor:
    """Returns the distance of each row to the nearest of a training set's."""
    parts = training.split(TOGETHER)
    return torch.stack([torch.cdist(x.float(), part).amin(1) for part in parts]).amin(0)
