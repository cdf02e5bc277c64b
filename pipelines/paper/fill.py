"""From a table to the quality of imputed entries, by a flow and by a Gaussian.

Entries are removed at random from all rows. A flow is fitted to the training rows without them,
and imputes those of the test rows. Beside it stands the full-covariance Gaussian of greatest
likelihood given the remaining entries: its conditional mean, and samples of its conditional
distribution. Samples are judged by the continuous ranked probability score of an entry, in its
column's standard deviations.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ebflow.estimates import Estimate
from ebflow.fitting import fit
from ebflow.imputation import impute
from ebflow.randomness import generator, uniform
from ebflow.tables.completion import Completion, fit_gaussian
from pipelines.data.dataset import Dataset
from pipelines.paper.config import FillConfig
from pipelines.tracking.run import StageRun

SHARE = 0.2
"""Share of the entries that are removed."""

DRAWS = 20
"""Samples per test row."""


def fill(config: FillConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores, and the flow's leads with their errors over rows."""
    dataset = run.open(config, Dataset(data))
    splits = ("train", "validation", "test")
    rows = {name: dataset.split(name).tensor().double() for name in splits}
    run.write_metrics(scores(config, rows, run.reporter.progress))


def scores(
    config: FillConfig, rows: Mapping[str, Tensor], report: Callable[[float, str], None]
) -> dict[str, float]:
    """Returns scores and leads, from complete rows of every split, with shape (N, D)."""
    observed = {name: _without_entries(config, x, name) for name, x in rows.items()}
    flow = fit(
        observed["train"],
        validation=(observed["validation"],),
        missing="impute",
        steps=config.steps,
        max_seconds=config.seconds,
        seed=config.seed,
        progress=False,
        callback=lambda event: report(event.share / 2, "fits the flow"),
    )
    imputed = impute(
        flow,
        observed["test"],
        generator=generator(config.seed, "fill", "flow"),
        draws=DRAWS,
        progress=lambda share: report((1 + share) / 2, "imputes the test rows"),
    )
    mean, scale = rows["train"].mean(0), rows["train"].std(0)
    y, z = ((x - mean) / scale for x in (rows["test"], observed["test"]))
    gaussian = fit_gaussian((observed["train"] - mean) / scale)
    completion = Completion(gaussian, z.repeat_interleave(DRAWS, 0))
    samples = completion.sample(generator(config.seed, "fill", "gaussian"))
    errors = {
        "flow": crps((imputed.draws - mean) / scale, y),
        "gaussian": crps(samples.view(len(z), DRAWS, -1), y),
        "gaussian_mean": (Completion(gaussian, z).means - y).abs(),
    }
    removed = z.isnan()
    return {
        "study/removed": float(removed.double().mean()),
        "study/r_hat": float(imputed.r_hat.median()),
        "train/steps": float(flow.history[-1]["step"]),
        **{f"study/crps_{name}": float(error[removed].mean()) for name, error in errors.items()},
        **_lead("gaussian", errors, removed),
        **_lead("gaussian_mean", errors, removed),
    }


def _without_entries(config: FillConfig, x: Tensor, split: str) -> Tensor:
    noise = generator(config.seed, "fill", split)
    return x.masked_fill(uniform(x.shape, x, noise) < SHARE, torch.nan)


def _lead(over: str, errors: Mapping[str, Tensor], removed: Tensor) -> dict[str, float]:
    """Returns the flow's lead over another, with its standard error over rows."""
    better = ((errors[over] - errors["flow"]) * removed).sum(1) / removed.double().sum(1).mean()
    lead = Estimate.of(better, name="lead")
    return {f"study/lead_over_{over}": lead.value, f"study/lead_over_{over}_se": lead.se}


@torch.no_grad()
def crps(draws: Tensor, y: Tensor) -> Tensor:
    r"""Returns the continuous ranked probability score of every element of ``y`` (N, D).

    It is :math:`E|X - y| - \tfrac12 E|X - X'|`, estimated without bias from at least two samples
    (N, K, D). The score of a point prediction is its absolute error.

    Source: Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting, Raftery, 2007).
    """
    count, ordered = draws.shape[1], draws.sort(1).values
    ranks = 2 * torch.arange(count, dtype=draws.dtype, device=draws.device) - (count - 1)
    spread = torch.einsum("k,nkd->nd", ranks, ordered) / (count * (count - 1))
    return (draws - y.unsqueeze(1)).abs().mean(1) - spread
