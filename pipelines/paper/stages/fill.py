"""From a table to how well what was taken out of it is put back, by a flow and by a Gaussian.

Entries are removed at random from all rows: a flow is fitted to the training rows without them,
and draws those of the test rows. Beside it stands the full-covariance Gaussian of greatest
likelihood given what is left, by its conditional mean and by draws of its conditional law.
Draws are judged by the continuous ranked probability score of an entry, in its column's standard
deviations.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ebflow.estimates import Estimate
from ebflow.fitting import fit
from ebflow.imputation import impute
from ebflow.randomness import generator, uniform
from ebflow.tables.completion import Completion, fit_gaussian
from pipelines.paper.config import FillConfig
from pipelines.paper.divergences import crps
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import Progress, begin, write_metrics


def fill(config: FillConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores, and the flow's leads with their errors over rows."""
    dataset = begin(config, config.threads, data, run, "training")
    names = ("train", "validation", "test")
    rows = {name: dataset.split(name).tensor().double() for name in names}
    write_metrics(compared(config, rows, run.reporter.progress), run)


def compared(config: FillConfig, rows: Mapping[str, Tensor], report: Progress) -> dict[str, float]:
    """Returns scores by complete rows of every split, with shape (N, D); tells how far it is."""
    holes = {name: _holes(config, x, name) for name, x in rows.items()}
    flow = fit(
        holes["train"],
        validation=(holes["validation"],),
        missing="impute",
        steps=config.steps,
        max_seconds=config.seconds,
        seed=config.seed,
        progress=False,
        callback=lambda event: report(event.share / 2, "fits the flow"),
    )
    mean, scale, draws = rows["train"].mean(0), rows["train"].std(0), config.draws
    gaussian = fit_gaussian((holes["train"] - mean) / scale)
    y, z = ((x - mean) / scale for x in (rows["test"], holes["test"]))
    gone = z.isnan()
    noise = generator(config.seed, "fill", "flow")
    made = impute(
        flow,
        holes["test"],
        generator=noise,
        draws=draws,
        progress=lambda share: report((1 + share) / 2, "draws what test rows lack"),
    )
    noise = generator(config.seed, "fill", "gaussian")
    drawn = Completion(gaussian, z.repeat_interleave(draws, 0)).sample(noise)
    scores = {
        "flow": crps((made.draws - mean) / scale, y),
        "gaussian": crps(drawn.view(len(z), draws, -1), y),
        "gaussian_mean": (Completion(gaussian, z).means - y).abs(),
    }
    return {
        "study/removed": float(gone.double().mean()),
        "study/r_hat": float(made.r_hat.median()),
        "train/steps": float(flow.history[-1]["step"]),
        **{f"study/crps_{name}": float(score[gone].mean()) for name, score in scores.items()},
        **_lead("gaussian", scores, gone),
        **_lead("gaussian_mean", scores, gone),
    }


def _holes(config: FillConfig, x: Tensor, name: str) -> Tensor:
    noise = generator(config.seed, "fill", name)
    return x.masked_fill(uniform(x.shape, x, noise) < config.share, torch.nan)


def _lead(over: str, scores: dict[str, Tensor], gone: Tensor) -> dict[str, float]:
    """Returns how much better the flow is than another, with its standard error over rows."""
    better = ((scores[over] - scores["flow"]) * gone).sum(1) / gone.double().sum(1).mean()
    found = Estimate.of(better, name="lead")
    return {f"study/lead_over_{over}": found.value, f"study/lead_over_{over}_se": found.se}
