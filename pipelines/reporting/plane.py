"""Pictures of densities in the plane: the density, its energy and its score.

``evaluate`` returns arrays, which a stage saves, and ``draw`` draws them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

ROWS = 1_000  # Points at a time
DEEPEST = 12.0  # Nats below the peak at which the colours of an energy end
PICTURES = ("density", "energy", "score")


class PlaneDensity(Protocol):
    """A density of two columns."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,)."""
        ...

    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) in nats with shape (B,)."""
        ...

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ log p(x) with shape (B, 2)."""
        ...


class Square(NamedTuple):
    """A part of the plane."""

    low: tuple[float, float]  #: Its least coordinates
    high: tuple[float, float]  #: Its largest coordinates

    def centres(self, pixels: int) -> Tensor:
        """Returns the centres of pixels², in float64, with shape (pixels², 2).

        The first coordinate changes fastest, and the first row has the least second coordinate.
        """
        steps = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
        sides = [low + (high - low) * steps for low, high in zip(*self, strict=True)]
        return torch.cartesian_prod(sides[1], sides[0]).flip(1)


def around(rows: np.ndarray, margin: float = 0.08) -> Square:
    """Returns the square that contains rows with shape (N, 2), without one in 200 at each end."""
    low, high = np.quantile(rows, [0.005, 0.995], axis=0)
    spare = margin * (high - low) + 1e-6
    return Square(tuple(map(float, low - spare)), tuple(map(float, high + spare)))


@torch.no_grad()
def evaluate(
    density: PlaneDensity, square: Square, *, pixels: int = 100, arrows: int = 16
) -> dict[str, np.ndarray]:
    """Returns ``log_prob`` and ``energy`` (pixels, pixels), and ``score`` (arrows, arrows, 2)."""
    parts = square.centres(pixels).split(ROWS)
    log_prob = torch.cat([density.log_prob(part) for part in parts])
    energy = torch.cat([density.energy(part) for part in parts])
    score = torch.cat([density.score(part) for part in square.centres(arrows).split(ROWS)])
    arrays = {
        "log_prob": log_prob.view(pixels, pixels),
        "energy": energy.view(pixels, pixels),
        "score": score.view(arrows, arrows, 2),
    }
    return {name: values.float().numpy() for name, values in arrays.items()}


def draw(
    axis: Axes,
    picture: str,
    arrays: Mapping[str, np.ndarray],
    square: Square,
    *,
    brightest: float | None = None,
) -> None:
    """Draws one of ``PICTURES``.

    Arguments:
        axis: Where.
        picture: Its name.
        arrays: The result of ``evaluate``.
        square: The part of the plane.
        brightest: The density of the brightest colour; None: the largest one.
    """
    blank(axis)
    (left, bottom), (right, top) = square
    look: dict[str, Any] = {
        "origin": "lower",
        "extent": (left, right, bottom, top),
        "aspect": "auto",
    }
    if picture == "density":
        axis.imshow(np.exp(arrays["log_prob"]), cmap="magma", vmin=0, vmax=brightest, **look)
    elif picture == "energy":
        least = float(arrays["energy"].min())
        shown = {"cmap": "viridis_r", "vmin": least, "vmax": least + DEEPEST}
        axis.imshow(arrays["energy"], **shown, **look)
    else:
        _draw_score(axis, arrays["score"], square)


def _draw_score(axis: Axes, score: np.ndarray, square: Square) -> None:
    """Draws arrows along the score; the longer half is cut to one length."""
    count = len(score)
    points = square.centres(count).numpy()
    arrows = score.reshape(-1, 2)
    length = np.linalg.norm(arrows, axis=1)
    longest = max(float(np.median(length)), 1e-12)
    arrows = arrows / np.maximum(length, longest)[:, None]
    axis.quiver(*points.T, *arrows.T, angles="xy", scale=1.1 * count, width=0.006)
    axis.set(xlim=(square.low[0], square.high[0]), ylim=(square.low[1], square.high[1]))


def draw_rows(axis: Axes, rows: np.ndarray, square: Square) -> None:
    """Draws rows with shape (N, 2) as points."""
    blank(axis)
    axis.plot(*rows.T, ".", markersize=1, color="black", alpha=0.4, rasterized=True)
    axis.set(xlim=(square.low[0], square.high[0]), ylim=(square.low[1], square.high[1]))


def blank(axis: Axes) -> None:
    """Removes ticks and grid."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
