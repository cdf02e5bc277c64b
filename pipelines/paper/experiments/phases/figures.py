"""The map and the pairs, drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from pipelines.paper.experiments.phases.grid import ACTIVATIONS, MAP, WIDE
from pipelines.paper.experiments.phases.nets import LOST, pair, where
from pipelines.reporting.style import BASELINE, DATA, FLOW, Captioned, panels

CAPTIONS = {
    "map": "A square is a net at D = 64, the mean over seeds. Above: the squared latent mean an "
    f"element in the end; white is {LOST:g}, red has lost mass, a dot is large and still falling, "
    "from a start far off, of half of the seeds. Below: the NLL above the Gaussian's; blue is a "
    "density better than it. Black: not finite.",
    "wide": "The same at the larger D.",
    "pairs": "NLL on validation digits above the Gaussian's over training, the mean over seeds, "
    "each with a split of its own, and their range; each "
    "at the best of four learning rates, exact likelihood at the better of two starts.",
}

COLOURS = {"published": BASELINE, "centred": "#e0a526", "learned": FLOW}
EDGES = (1e-3, 30.0)
"""Of the squared latent mean an element, as colours tell it."""

LINE, COLUMN = ["preprocessing", "start"], ["objective", "rate"]
"""What tells lines and columns of the map apart."""

SHADES = {
    "squared latent mean\nan element, log₁₀": (
        TwoSlopeNorm(np.log10(LOST), *np.log10(EDGES)), "RdYlBu_r",
    ),
    "NLL above the Gaussian's\nan element, nats": (TwoSlopeNorm(0.0, -0.1, 1.0), "RdBu_r"),
}  # fmt: skip
"""Scale and colours of what squares are coloured by, which :func:`_shaded` adds to nets."""


def figures(nets: pd.DataFrame) -> dict[str, Captioned]:
    """Returns the figures by name, with what they show."""
    shaded = _shaded(nets)
    made = {
        "map": _map(where(shaded, part=MAP), (11, 8.4)),
        "wide": _map(where(shaded, part=WIDE), (9, 5.2)),
        "pairs": _pairs(nets),
    }
    return {name: (figure, CAPTIONS[name]) for name, figure in made.items()}


def _shaded(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns nets with what they are coloured by; NaN of one that was not finite."""
    last = nets["nll"].map(lambda nll: nll[-1])
    above = (last - nets["gaussian"]) / nets["width"]
    values = (np.log10(nets["end"].clip(*EDGES)), above.clip(-0.1, 1.0))
    shades = zip(SHADES, values, strict=True)
    return nets.assign(**{label: value.where(np.isfinite(last)) for label, value in shades})


def _map(nets: pd.DataFrame, size: tuple[float, float]) -> Figure:
    shared = {"sharex": True, "sharey": True}
    figure, axes = panels(len(ACTIVATIONS), *size, down=len(SHADES), **shared)
    lines, columns = (
        pd.MultiIndex.from_frame(nets[by].drop_duplicates()) for by in (LINE, COLUMN)
    )
    for label, row in zip(SHADES, axes, strict=True):
        for activation, axis in zip(ACTIVATIONS, row, strict=True):
            found = where(nets, activation=activation)
            shown = _squares(axis, label, found, lines, columns)
        figure.colorbar(shown, ax=row, label=label, shrink=0.8, pad=0.01)
    for activation, axis in zip(ACTIVATIONS, axes[0], strict=True):
        axis.set_title(activation)
    axes[0, 0].invert_yaxis()
    across = [f"{objective}, {rate:g}" for objective, rate in columns]
    axes[0, 0].set_xticks(np.arange(len(columns)) + 0.5, across)
    axes[0, 0].set_yticks(np.arange(len(lines)) + 0.5, ["  ".join(line) for line in lines])
    return figure


def _squares(
    axis: Axes, label: str, nets: pd.DataFrame, lines: pd.MultiIndex, columns: pd.MultiIndex
) -> mpl.cm.ScalarMappable:
    """Draws nets as squares, the mean over seeds; a dot where means of half are still falling.

    A square is black where a net was not finite.
    """
    shade, late = (
        nets.pivot_table(name, LINE, COLUMN, aggfunc=lambda found: found.mean(skipna=False))
        .reindex(index=lines, columns=columns)
        .to_numpy(float)
        for name in (label, "late")
    )
    norm, colours = SHADES[label]
    cmap = mpl.colormaps[colours].with_extremes(bad="black")
    shown = axis.pcolormesh(shade, cmap=cmap, norm=norm, edgecolors="white", lw=1.5)
    down, across = np.nonzero(late >= 0.5)
    axis.plot(across + 0.5, down + 0.5, ".", color="black", ms=3)
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=7)
    axis.tick_params("x", rotation=90)
    return shown


def _pairs(nets: pd.DataFrame) -> Figure:
    figure, axis = panels(width=7, height=3.6)
    for name, colour in COLOURS.items():
        group = pair(nets, name)
        first = group.iloc[0]
        values = np.stack(group["nll"]) - group[["gaussian"]].to_numpy()
        label = f"{first['objective']}, {name}, rate {first['rate']:g}"
        axis.plot(first["steps"], values.mean(0), marker=".", color=colour, label=label)
        spread = (values.min(0), values.max(0))
        axis.fill_between(first["steps"], *spread, color=colour, alpha=0.2, lw=0)
    axis.axhline(0, color=DATA, ls="--", lw=1, label="full-covariance Gaussian")
    axis.set(xlabel="step", ylabel="validation NLL above the Gaussian's (nats)", ylim=(None, 8))
    axis.legend()
    return figure
