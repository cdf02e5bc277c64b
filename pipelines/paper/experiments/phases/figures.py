"""The map, the rule and the pairs, drawn."""

from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from pipelines.paper.experiments.phases.grid import ACTIVATIONS, MAP, WIDE
from pipelines.paper.experiments.phases.nets import LOST, START
from pipelines.paper.experiments.phases.rule import Rule, choose, parted
from pipelines.paper.experiments.phases.verdicts import pair
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

CAPTIONS = {
    "map": "A square is a net at D = 64, the mean over seeds. Above: the squared latent mean an "
    f"element in the end; white is {LOST:g}, red has lost mass, a dot is large and still falling, "
    "from a start far off, of half of the seeds. Below: the NLL above the Gaussian's; blue is a "
    "density better than it. Black: not finite.",
    "wide": "The same at the larger D.",
    "rule": "What the rule sees at the start against the squared latent mean in the end, a point "
    "a cell; lost mass is filled. Lines: the rule's threshold, and where mass counts as lost. "
    "Right: cells that the rule has not seen.",
    "pairs": "NLL on validation digits above the Gaussian's over training, the mean over seeds, "
    "each with a split of its own, and their range; each "
    "at the best of four learning rates, exact likelihood at the better of two starts.",
}

COLOURS = {"published": BASELINE, "centred": "#e0a526", "learned": FLOW}
EDGES = (1e-3, 30.0)
"""Of the squared latent mean an element, as colours tell it."""


LINE, COLUMN = ["preprocessing", *START], ["objective", "rate"]
"""What tells lines and columns of the map apart."""


class Shade(NamedTuple):
    """What a square is coloured by.

    Attributes:
        label: Of the colour bar.
        value: Of nets.
        norm: From values to [0, 1].
        colours: A name of a colour map.
    """

    label: str
    value: Callable[[pd.DataFrame], pd.Series]
    norm: Normalize
    colours: str


def _last(nets: pd.DataFrame) -> pd.Series:
    return pd.Series([nll[-1] for nll in nets["nll"]], nets.index, float)


SHADES = (
    Shade(
        "squared latent mean an element, log₁₀",
        lambda nets: np.log10(nets["end"].clip(*EDGES)),
        TwoSlopeNorm(np.log10(LOST), *np.log10(EDGES)),
        "RdYlBu_r",
    ),
    Shade(
        "NLL above the Gaussian's an element, nats",
        lambda nets: ((_last(nets) - nets["gaussian"]) / nets["width"]).clip(-0.1, 1.0),
        TwoSlopeNorm(0.0, -0.1, 1.0),
        "RdBu_r",
    ),
)


def figures(nets: pd.DataFrame) -> dict[str, Figure]:
    """Returns the figures by name."""
    first, second, wide = parted(nets)
    rule = choose(first)
    found = {
        "map": _map(nets[nets["part"] == MAP], (11, 8.4)),
        "wide": _map(nets[nets["part"] == WIDE], (8, 4.2)),
        "pairs": _pairs(nets),
    }
    if rule is not None:
        found["rule"] = _rule(rule, first, pd.concat([second, wide]))
    return found


def _map(nets: pd.DataFrame, size: tuple[float, float]) -> Figure:
    shared = {"sharex": True, "sharey": True}
    figure, axes = panels(len(ACTIVATIONS), *size, down=len(SHADES), **shared)
    lines, columns = (
        pd.MultiIndex.from_frame(nets[by].drop_duplicates()) for by in (LINE, COLUMN)
    )
    for shade, line in zip(SHADES, axes, strict=True):
        for activation, axis in zip(ACTIVATIONS, line, strict=True):
            found = nets[nets["activation"] == activation]
            shown = _squares(axis, shade, found, lines, columns)
        figure.colorbar(shown, ax=line, label=shade.label, shrink=0.8, pad=0.01)
    for activation, axis in zip(ACTIVATIONS, axes[0], strict=True):
        axis.set_title(activation)
    for axis in axes[-1]:
        ticks = [f"{objective}, {rate:g}" for objective, rate in columns]
        axis.set_xticks(range(len(columns)), ticks, rotation=90, fontsize=7)
    for axis in axes[:, 0]:
        ticks = [f"{preprocessing}  {sign:+d}, {bias:g}" for preprocessing, sign, bias in lines]
        axis.set_yticks(range(len(lines)), ticks, fontsize=7)
    return figure


def _squares(
    axis: Axes, shade: Shade, nets: pd.DataFrame, lines: pd.MultiIndex, columns: pd.MultiIndex
) -> mpl.cm.ScalarMappable:
    """Draws nets as squares, the mean over seeds; a dot where means of half are still falling.

    A square is black where a net was not finite.
    """
    known = nets.assign(shade=shade.value(nets).where(np.isfinite(_last(nets))))
    means = {
        name: known.pivot_table(name, LINE, COLUMN, aggfunc=lambda found: found.mean(skipna=False))
        .reindex(index=lines, columns=columns)
        .to_numpy(float)
        for name in ("shade", "late")
    }
    for row, column in np.argwhere(means["late"] >= 0.5):
        axis.plot(column, row, ".", color="black", ms=3)
    colours = mpl.colormaps[shade.colours].with_extremes(bad="black")
    shown = axis.imshow(means["shade"], cmap=colours, norm=shade.norm, aspect="auto")
    axis.grid(visible=False)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(lines) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", lw=1.5, alpha=1.0)
    axis.tick_params(which="both", length=0)
    return shown


def _rule(rule: Rule, seen: pd.DataFrame, unseen: pd.DataFrame) -> Figure:
    figure, axes = panels(2, 9, 3.8, sharex=True, sharey=True)
    for axis, group, title in zip(axes, (seen, unseen), ("chosen on", "unseen"), strict=True):
        kinds = group.groupby(["part", "activation", "lost"])
        for (part, activation, lost), cells in kinds:
            colour = COLOURS[activation]
            style = {"marker": "s", "ms": 6} if part == WIDE else {"marker": "o", "ms": 4}
            style |= {"color": colour, "mfc": colour if lost else "none", "mew": 0.8}
            ends = cells["end"].clip(upper=10 * EDGES[1])
            axis.plot(cells[rule.quantity], ends, ls="", alpha=0.8, **style)
        axis.axvline(rule.threshold, color=DATA, ls="--", lw=1)
        axis.axhline(LOST, color=DATA, ls=":", lw=1)
        axis.set(title=title, xlabel=f"{rule.quantity}, an element")
    axes[0].set_xscale("symlog", linthresh=0.01)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("squared latent mean an element, in the end")
    handles = [
        mpl.lines.Line2D([], [], marker="o", ls="", color=colour, label=name)
        for name, colour in COLOURS.items()
    ]
    axes[1].legend(handles=handles, fontsize=8)
    return figure


def _pairs(nets: pd.DataFrame) -> Figure:
    figure, axis = panels(width=7, height=3.6)
    for name, colour in COLOURS.items():
        group = pair(nets, name)
        first = group.iloc[0]
        values = np.stack(group["nll"]) - group[["gaussian"]].to_numpy()
        label = f"{first['objective']}, {name}, rate {first['rate']:g}"
        steps = first["steps"]
        axis.plot(steps, values.mean(0), marker=".", color=colour, label=label)
        axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
    axis.axhline(0, color=DATA, ls="--", lw=1, label="full-covariance Gaussian")
    axis.set(xlabel="step", ylabel="validation NLL above the Gaussian's (nats)", ylim=(None, 8))
    axis.legend()
    return figure
