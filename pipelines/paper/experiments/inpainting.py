"""Inpainting: strokes that cover images, filled by Langevin's diffusion of dense flows.

The paper shows pictures of 64 × 64 × 3 images and no number. ``MARGIN`` makes a claim of it: the
mean of a flow's samples must not err more than the conditional mean of the full-covariance
Gaussian, which is the best linear guess. Both are guesses behind the same logit.

At scale ``full``, the settings of ``paper dsm`` are the published ones of STL-10.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.config import AnchorConfig, Dense, DensityConfig, Objective
from pipelines.config.data import PreprocessConfig
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Measure, Row
from pipelines.paper.config import InpaintConfig, PaperConfig
from pipelines.paper.table import LARGE_RATE, LEAKY
from pipelines.reporting.claims import Conclusion, Question, decide
from pipelines.reporting.statistics import Confidence, below, student
from pipelines.reporting.style import Captioned, panels, tiles

# The weight 0.001 of the energy on 64 × 64 images in nats: the paper's code divides losses by D,
# and the term by the number of colours.
LOW_ENERGY = 0.001 * 64 * 64

EPOCHS, ROWS = 500, 5_000  # The published length of training, and rows of an epoch
BATCH = 10  # The published batch, at scale ``full``
USUAL_BATCH = 100  # Every other batch

SHOWN = 12  # Images of a figure

# Options of what is filled, by scale, if they are not the stage's defaults.
SIZES = {"smoke": {"images": SHOWN, "samples": 2, "steps": 50}, "cpu": {}, "full": {"images": 100}}

CHAINS = {"adaptive": "paper's", "langevin": "Langevin", "momentum": "momentum"}

# The largest excess of the flow's error over the Gaussian's, as a share of the latter.
MARGIN = 0.02


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the published settings, and this project's by anchored DSM and by likelihood."""
    settings = InpaintConfig(seed=seed, threads=config.threads, **SIZES[config.scale])
    measure = Measure("inpaint", settings)
    yield Cell.of_flow({"flow": "paper dsm"}, _published(config, seed), measure=measure)
    common = _base(config, seed, batch_size=USUAL_BATCH)
    for objective in ("dsm", "lazy_ml"):
        flow = common.changed(
            model=Dense(depth=2),
            objective=Objective.of(objective, sigma=0.1, every=cell.EVERY),
            train={"lr": LARGE_RATE},
        )
        yield Cell.of_flow({"flow": f"recipe {objective}"}, flow, measure=measure)


def _published(config: PaperConfig, seed: int) -> DensityConfig:
    """Returns the published settings of 64 × 64 × 3 images."""
    batch = BATCH if config.scale == "full" else USUAL_BATCH
    return _base(config, seed, batch_size=batch).changed(
        preprocess=PreprocessConfig(normalize="none", scale=0.5),
        model=Dense(depth=2, bias=1.0, sign=-1, **{**LEAKY, "calibrated": False}, residual=True),
        objective=Objective.of("dsm", sigma=0.1),
        anchor=AnchorConfig(weight=0.0),
        stabilise={"low_energy": LOW_ENERGY},
        train={
            "optimizer": "rmsprop",
            "lr": 1e-4,
            "warmup": 0.0,
            "schedule": "multistep",
            "gamma": 0.85,
            "milestones": 29,
            "epoch": ROWS // batch,
        },
    )


def _base(config: PaperConfig, seed: int, *, batch_size: int) -> DensityConfig:
    """Returns the data, and the published epochs of them or what the scale allows."""
    epoch = ROWS // batch_size
    source = "stl10" if config.scale == "full" else "natural-patches"
    limits = {"cpu": 90, "full": EPOCHS * epoch, "validate_every": epoch}
    return cell.base(config, seed, source, batch_size=batch_size, **limits)


def excesses(finished: Sequence[Finished]) -> dict[str, Confidence]:
    """Returns the excess of each flow's error over the Gaussian's, as a share of the latter.

    The error is that of the mean of Langevin's diffusion with momentum, without the part that is
    due to the number of samples. Errors are compared image by image: the interval of a single seed
    is that over images, by the delta method.
    """
    units: dict[str, list[np.ndarray]] = {}
    for one in finished:
        arrays = np.load(one.folders["measured"] / "arrays.npz")
        ours, theirs = arrays["squares_momentum"], arrays["squares_gaussian"]
        ratio = np.sqrt(ours.sum() / theirs.sum())
        # The influence of an image on the ratio of errors.
        influence = ratio / 2 * (ours / ours.mean() - theirs / theirs.mean())
        units.setdefault(one.cell.labels["flow"], []).append(ratio - 1 + influence)
    return {
        name: student(seeds[0] if len(seeds) == 1 else [values.mean() for values in seeds])
        for name, seeds in units.items()
    }


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns a claim for each flow."""
    seeds = len({one.cell.seed for one in finished})
    units = f"{seeds} seeds" if seeds > 1 else "images, of a single seed"
    measured = []
    for name, excess in excesses(finished).items():
        question = Question(
            claim=f"{name} fills masks with at most {MARGIN:.0%} more error than a Gaussian.",
            quantity="relative excess of the r.m.s. error over the Gaussian's conditional mean",
            expected=below(MARGIN),
            figure="inpainting",
            item="E10",
            note="The mean of Langevin's diffusion with momentum, without the part of the error "
            f"that is due to the number of samples. Over {units}.",
        )
        measured.append((question, excess if cell.decisive(finished) else None))
    claims = decide(measured)
    return Conclusion(
        claims=tuple(claims),
        would_change=("Longer trainings, longer chains and more samples would change errors.",),
    )


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns the first test images, their masks, and what the first seed's flows fill in."""
    first = [one for one in finished if one.cell.seed == finished[0].cell.seed]
    found = [(one, dict(np.load(one.folders["measured"] / "arrays.npz"))) for one in first]
    some = found[0][1]
    black, white = some["range"]
    seen = np.where(some["missing"], (black + white) / 2, some["truth"])
    shown = [("truth", some["truth"]), ("seen", seen), ("Gaussian", some["gaussian"])]
    for one, arrays in found:
        name = one.cell.labels["flow"]
        shown += [(f"{name}\n{chain}", arrays[key]) for key, chain in CHAINS.items()]
        shown.append((f"{name}\nmean", arrays["momentum_mean"]))
    figure, axes = panels(1, 10, 0.72 * len(shown), down=len(shown))
    for axis, (name, images) in zip(axes, shown, strict=True):
        scaled = (images[:SHOWN] - black) / (white - black)
        axis.imshow(tiles(scaled, tuple(some["shape"]), SHOWN), cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.grid(visible=False)
    caption = (
        "The first test images, with masked pixels in grey; samples of the first seed's flows."
    )
    return {"inpainting": (figure, caption)}


INPAINTING = Experiment(
    about="masked strokes: r.m.s. error of samples, and of their mean (grey levels)",
    legend="paper's: a sample by the paper's chain; momentum: by Langevin's diffusion with "
    "momentum; mean: of these samples; Gaussian: its conditional mean, of the logits; pixel mean: "
    "over training images",
    source="stl10",
    cells=cells,
    columns=(
        cell.STEPS,
        Column("study/rmse_mean_fill", "pixel mean", interval=False),
        Column("study/rmse_gaussian", "Gaussian", interval=False),
        Column("study/rmse_adaptive", "paper's", interval=False),
        Column("study/rmse_momentum", "momentum", interval=False),
        Column("study/rmse_momentum_mean", "mean"),
    ),
    figures=figures,
    conclude=conclude,
)
