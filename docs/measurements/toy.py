r"""Densities in the plane: the divergence of each objective's flow from the truth.

    python docs/measurements/toy.py --seeds 3 --seconds 15

Every objective has the same target, the density smoothed by σ = 0.375. Denoising score matching
smooths by itself; the other objectives see noised rows. Scores are matched in some steps only, and
denoising leaves most of the noise to the rows, because the steps between see the same rows.

Divergences of a flow q from the density p are estimated by samples x of p that are independent of
the training rows:

* Kullback-Leibler: :math:`\mathrm{KL}(p \| q) = E_p[\log p - \log q]`, in nats;
* Fisher: :math:`F(p \| q) = \tfrac12 E_p \| \nabla \log p - \nabla \log q \|^2`, which needs no
  normalizer. Both are zero only if p = q.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ebflow.bases import GaussianMixture
from ebflow.checkpoint import load
from ebflow.density import LogDensity
from ebflow.evaluation import Estimate
from ebflow.flow import Flow
from ebflow.randomness import generator, normal
from ebflow.toy import SAMPLERS, SMOOTHED
from pipelines.config import Coupling, DensityConfig, Objective
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.compare import compare
from pipelines.paper.config import PaperConfig
from pipelines.paper.table import OBJECTIVES
from pipelines.reporting.style import Captioned, panels

SIGMA = 0.375

EXTENT = 9.0  # Half the side of a picture
ROWS = 1_000  # Points at a time

SECONDS = 20.0

OWN_SIGMA = 0.05  # The recipe's noise of denoising score matching; the rows have the rest
SAMPLES, RESOLUTION = 10_000, 120  # Points of the divergences, and pixels across a picture
LENGTHS = {"sine": 50_001, "swirl": 50_001, "checkerboard": 100_001}  # Published steps, by density


class ToyConfig(PaperConfig):
    """Divergences of flows from densities in the plane, by objective."""

    experiment: Literal["toy"] = "toy"
    """the only one"""


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields each density and objective."""
    common = {"cpu": SECONDS, "recipe": DensityConfig, "validate_every": 500, "threads": 1}
    for density, objective in product(LENGTHS, OBJECTIVES.values()):
        own = OWN_SIGMA if objective == "dsm" else 0.0
        weight = SIGMA**2 if objective == "ssm_vr" else None
        flow = cell.base(config, seed, density, full=LENGTHS[density], **common).changed(
            objective=Objective.of(objective, sigma=OWN_SIGMA, every=cell.EVERY, weight=weight),
            preprocess={"logit": None, "match_after": False},
            # Free log-scales make a loss infinite, or a stray point too expensive.
            model=Coupling(depth=6, hidden=32, bound=2.0),
            train={
                "batch_size": 256, "lr": 1e-2, "warmup": 0.25, "clip": 1.0, "ema_decay": 0.99,
                "noise": math.sqrt(SIGMA**2 - own**2),
            },
        )  # fmt: skip
        yield Cell.of_flow({"density": density, "objective": objective}, flow)


Normalized = Flow | GaussianMixture


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns a row for each flow, with its divergences from the truth.

    The flow has the averaged weights at the end of training: validation, by data without noise,
    would choose another one.
    """
    return [one.row | divergences(one.cell.labels["density"], _flow(one)) for one in finished]


def _flow(one: Finished) -> Flow:
    return load(one.folders["trained"] / "last")


def divergences(density: str, flow: Flow) -> Row:
    """Returns the divergences with their standard errors."""
    truth, noise = SMOOTHED[density](SIGMA), generator(0, "diverge", density)
    clean = SAMPLERS[density](SAMPLES, generator=noise)
    x = torch.add(clean, normal(clean.shape, clean, noise), alpha=SIGMA)
    kl, fisher = kl_divergence(truth, flow, x), fisher_divergence(truth, flow, x)
    return {
        "study/kl": kl.value, "study/kl_se": kl.se,
        "study/fisher": fisher.value, "study/fisher_se": fisher.se,
    }  # fmt: skip


@torch.no_grad()
def kl_divergence(p: Normalized, q: Normalized, x: Tensor) -> Estimate:
    """Returns KL(p ‖ q) in nats from samples of p; a small one may be negative."""
    terms = [p.log_prob(rows).double() - q.log_prob(rows).double() for rows in x.split(ROWS)]
    return Estimate.of(torch.cat(terms), name="log p − log q")


@torch.no_grad()
def fisher_divergence(p: LogDensity, q: LogDensity, x: Tensor) -> Estimate:
    """Returns ½ E‖∇log p − ∇log q‖² from samples of p, in nats per squared unit of x."""
    terms = [
        0.5 * (p.score(rows) - q.score(rows)).flatten(1).double().square().sum(1)
        for rows in x.split(ROWS)
    ]
    return Estimate.of(torch.cat(terms), name="squared difference of scores")


@torch.no_grad()
def picture(density: Normalized) -> np.ndarray:
    """Returns log p on a square of pixels, the first row at the lowest x₂."""
    pixels = torch.arange(RESOLUTION, dtype=torch.float64) + 0.5
    side = EXTENT * (2 * pixels / RESOLUTION - 1)
    points = torch.cartesian_prod(side, side).flip(1)
    values = torch.cat([density.log_prob(rows) for rows in points.split(ROWS)])
    return values.float().view(RESOLUTION, -1).numpy()


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns the densities of the first seed's flows beside the true ones."""
    figure, axes = panels(1 + len(OBJECTIVES), 9.6, 5.1, down=len(LENGTHS))
    places = dict(zip(product(LENGTHS, ("truth", *OBJECTIVES.values())), axes.flat, strict=True))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    look = {"origin": "lower", "cmap": "magma", "interpolation": "bilinear"}
    truths = {density: np.exp(picture(SMOOTHED[density](SIGMA))) for density in LENGTHS}
    for density, truth in truths.items():
        places[density, "truth"].imshow(truth, vmin=0, **look)
    for one, row in zip(finished, rows, strict=True):
        if one.cell.seed == finished[0].cell.seed:
            density, objective = one.cell.labels.values()
            brightest, axis = truths[density].max(), places[density, objective]
            axis.imshow(np.exp(picture(_flow(one))), vmin=0, vmax=brightest, **look)
            axis.set_xlabel(f"KL {row['study/kl']:.3f}")
    for axis, title in zip(axes[0], ("truth", *OBJECTIVES), strict=True):
        axis.set_title(title)
    for axis, density in zip(axes[:, 0], LENGTHS, strict=True):
        axis.set_ylabel(density)
    return {"densities": (figure, "Of the first seed; KL divergences from the truth, nats.")}


TOY = Experiment(
    about="divergences of flows from smoothed densities in the plane",
    legend="Gaussian base throughout (the paper's code: Laplace at evaluation); scores are "
    f"matched in one of {cell.EVERY} steps beside an anchor in all",
    uses=frozenset(("seconds", "seed", "seeds", "cluster")),
    cells=cells,
    columns=(cell.STEPS, Column("study/fisher", "Fisher", 2), Column("study/kl", "KL (nats)", 4)),
    rows=rows,
    figures=figures,
)

toy = compare  # The stage of this script


if __name__ == "__main__":
    from experiments import main

    main(ToyConfig, TOY)
