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

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import laws
from ebflow.complexity.denoisers import looks
from ebflow.complexity.errors import Denoiser, denoising_errors
from ebflow.complexity.residual import ResidualDenoisers, UNetDenoisers
from ebflow.complexity.samplers import Scores, ladder, probability_flow
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import frame, over_levels, share
from pipelines.sample_complexity.config import DenoiserCell
from pipelines.sample_complexity.sets import Sets

LEAST, WIDEST = 0.2, 20.0
"""The noises, in units of the deviation of a feature."""

DISTANCE = 4.0
"""That of an implanted mode, in radii of the law."""

DELTA = 0.1
"""The mass δ of the quantile error."""

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


def denoisers(cell: DenoiserCell) -> pd.DataFrame:
    """Returns the errors and samples of every network, and those of the exact score."""
    plain = load(cell.law)
    truth = plain.with_rare(cell.eta, distance=DISTANCE) if cell.eta else plain
    sets, levels = _drawn(cell, truth), ladder(WIDEST, LEAST, cell.levels)
    true = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "true"))
    nets = _networks(cell, sets)
    training = looks(
        nets, sets.draws(_noise(cell, f"train {cell.net}")), lengths=cell.lengths, least=LEAST,
        highest=WIDEST, rows=cell.batch, lr=RATES[cell.net],
    )  # fmt: skip

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return nets.denoise(x.float(), sigma)

    def missing(x: Tensor, sigma: float) -> Tensor:
        return plain.denoise(x[0], sigma)[None]

    near = [_distance(true, sets.of(index)).quantile(NEAR) for index in range(nets.count)]
    parts = []
    for step in training:
        x = _samples(cell, nets.at, truth, levels, nets.count)
        copied = [float((_distance(rows, sets.of(index)) < near[index]).double().mean())
                  for index, rows in enumerate(x)]  # fmt: skip
        parts.append({
            "learner": LEARNERS[cell.net], "step": step, "copied": copied, **sets.columns,
            **_errors(cell, truth, denoise, levels, sets.columns["seed"].tolist()),
            **_quality(cell, truth, true, x),
        })  # fmt: skip
    if cell.net == "residual":
        parts += _floors(cell, truth, true, levels)
        if cell.eta:
            found = _errors(cell, truth, missing, levels, [cell.first])
            parts.append({"learner": MISSING, "seed": cell.first, **found})
    constants = {"panel": "truths", "law": cell.law, "size": truth.clean.size, "eta": cell.eta}
    return pd.concat([frame(part | constants) for part in parts], ignore_index=True)


def _noise(cell: DenoiserCell, name: str) -> torch.Generator:
    return derive(cell.seed, "truths", name, cell.law, cell.first)


def _floors(
    cell: DenoiserCell, truth: Truth, true: Tensor, levels: list[float]
) -> Iterator[dict[str, Any]]:
    """Gives what samples of the exact score, and true ones, are off."""
    again = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "floors"))
    exact = _samples(cell, truth.smoothed, truth, levels)
    for learner, rows in (("exact score", exact), ("true samples", again[None])):
        quality = _quality(cell, truth, true, rows)
        yield {"learner": learner, "seed": cell.first, **quality}


def _drawn(cell: DenoiserCell, truth: Truth) -> Sets:
    def draw(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "truths", cell.law, index)
        clean, component = truth.clean.sample_with_components(max(cell.sizes), generator=noise)
        rare = (component == len(truth.clean.weights) - 1) & (truth.rare > 0)
        return clean.float(), rare

    return Sets.drawn(draw, torch.arange(cell.first, cell.first + cell.count), cell.sizes)


def _networks(cell: DenoiserCell, sets: Sets) -> ResidualDenoisers | UNetDenoisers:
    shape = len(sets.owner), sets.clean.shape[2]
    options = {"width": cell.width, "generator": _noise(cell, f"start {cell.net}")}
    if cell.net == "unet":
        return UNetDenoisers(*shape, **options)
    return ResidualDenoisers(*shape, blocks=cell.blocks, **options)


def _errors(
    cell: DenoiserCell, truth: Truth, denoise: Denoiser, levels: list[float], sets: Sequence[int]
) -> dict[str, Any]:
    """Returns the columns of errors, a number or one a level of every network.

    Each training set has test points of its own: what they add is in intervals over sets.
    """
    deltas = DELTA, share(DELTA, len(levels))
    found = [
        denoising_errors(denoise, truth, sigma, points=TEST, deltas=deltas,
                         generator=[derive(cell.seed, "test", one, f"{sigma:g}") for one in sets])
        for sigma in levels
    ]  # fmt: skip
    names = {"by_level_l2": "sigma_l2", "by_level_d": f"sigma_d_{DELTA:g}"}
    by_level = {
        column: torch.stack([one[name] for one in found], -1).float().tolist()
        for column, name in names.items()
    }
    return {**found[-1], **over_levels(found, DELTA), **by_level}


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


def _distance(x: Tensor, training: Tensor) -> Tensor:
    """Returns the distance of each row to the nearest of a training set's."""
    parts = training.split(TOGETHER)
    return torch.stack([torch.cdist(x.float(), part).amin(1) for part in parts]).amin(0)
