"""Draws ``density.png`` and ``scores.png``: densities in the plane, by likelihood and by scores.

``OMP_NUM_THREADS=1 python docs/figures/plane.py`` takes about a minute of one core.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

import ebflow
from pipelines.reporting.style import DATA, FLOW, panels

HERE = Path(__file__).parent
LARGE = {"fontsize": 17}
SHARE = 0.8  # Of the rows in the left cloud
SHADES = LinearSegmentedColormap.from_list("flow", ["white", FLOW, "#0b2545"])


def draw_density() -> None:
    """Draws points of a spiral, the density learned from them, and its samples."""
    generator = torch.Generator().manual_seed(0)
    x = ebflow.toy.swirl(8000, generator=generator).float()
    flow = ebflow.fit(x, steps=2000, seed=0, progress=False)
    figure, axes = panels(3, 9, 3)
    reach = ((-8.2, 6.6), (-5.6, 6.7))
    axes[0].plot(*x[:2500].T, ".", color=DATA, ms=2)
    shade(axes[1], flow, reach)
    axes[2].plot(*flow.sample(2500, generator=generator).T, ".", color=FLOW, ms=2)
    titles = ("training points", "learned density", "new samples")
    for axis, title in zip(axes, titles, strict=True):
        bare(axis, title, reach)
    figure.savefig(HERE / "density.png")


def draw_scores() -> None:
    """Draws two clouds, and the densities that likelihood and scores alone learn from them."""
    x = clouds(4000)
    loss = ebflow.Loss(partial(ebflow.objectives.dsm, sigma=0.1))
    figure, axes = panels(3, 9, 2.3)
    reach = ((-6, 6), (-4, 2.8))
    axes[0].plot(*x[:2000].T, ".", color=DATA, ms=2)
    mark(axes[0], x)
    bare(axes[0], "training points", reach)
    for axis, title, options in (
        (axes[1], "likelihood", {}),
        (axes[2], "scores alone", {"loss": loss}),
    ):
        flow = ebflow.fit(
            x, architecture="dense", normalize="standardize", marginals=False, steps=1000,
            patience=None, seed=0, progress=False, **options,
        )  # fmt: skip
        shade(axis, flow, reach)
        mark(axis, flow.sample(20_000, generator=torch.Generator().manual_seed(0)))
        bare(axis, title, reach)
    figure.savefig(HERE / "scores.png")


def clouds(count: int) -> torch.Tensor:
    """Returns points of two round clouds, a share of ``SHARE`` in the left one."""
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(count, generator=generator) < SHARE
    x = 0.7 * torch.randn(count, 2, generator=generator)
    x[:, 0] += torch.where(left, -3.5, 3.5)
    return x


def shade(axis: Axes, flow: ebflow.Flow, reach: tuple[tuple, tuple]) -> None:
    """Shades the plane by the density."""
    across, up = (np.linspace(*ends, 160) for ends in reach)
    grid = torch.tensor(np.stack(np.meshgrid(across, up), -1), dtype=torch.float32)
    density = flow.log_prob(grid.reshape(-1, 2)).exp().reshape(grid.shape[:2])
    axis.pcolormesh(across, up, density.sqrt(), cmap=SHADES, shading="gouraud")


def mark(axis: Axes, x: torch.Tensor) -> None:
    """Writes the share of points on either side."""
    left = float((x[:, 0] < 0).float().mean())
    axis.text(-3.5, -3.7, f"{left:.0%}", ha="center", **LARGE)
    axis.text(3.5, -3.7, f"{1 - left:.0%}", ha="center", **LARGE)


def bare(axis: Axes, title: str, reach: tuple[tuple, tuple]) -> None:
    """Gives the axis a title and a frame without ticks."""
    axis.set_title(title, **LARGE)
    axis.set(xlim=reach[0], ylim=reach[1], xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)
    axis.grid(False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw_density()
    draw_scores()
