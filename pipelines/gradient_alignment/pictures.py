"""Pictures of what classifiers see: their gradients, attributions, and samples."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.gradient_alignment.comparisons import Lines
from pipelines.reporting.pictures import tiles
from pipelines.reporting.style import panels

Captioned = tuple[Figure, str]

SHOWN = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti", "paper-score",
         "fool-weights")  # fmt: skip
"""Models whose gradients and samples are shown, where they were measured."""


def _rows_of(lines: Lines) -> dict[str, Mapping[str, np.ndarray]]:
    """Returns the arrays of the first seed of the models that are shown."""
    return {name: lines[name].seeds[0].arrays for name in SHOWN if name in lines}


def _gradients(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _rows_of(lines)
    images = next(iter(found.values()))["images"]
    grid = [("image", images, "gray")]
    grid += [(name, arrays["gradients"], "RdBu_r") for name, arrays in found.items()]
    if "baseline" in found:
        grid.append(("baseline, centred", found["baseline"]["centred"], "RdBu_r"))
    if "score" in found:
        grid.append(("score, centred", found["score"]["centred"], "RdBu_r"))
    return _grid(grid, shape), (
        "Gradients of the true class's logit at test images, each on its own scale: red raises "
        "the logit, blue lowers it. Centred: less the mean over classes."
    )


def _attributions(lines: Lines, shape: Sequence[int]) -> Captioned:
    grid = []
    names = ("saliency", "input × gradient", "integrated gradients")
    for model, arrays in _rows_of(lines).items():
        if model in ("baseline", "score", "fool-shift"):
            grid += [(f"{model}, {name}", arrays[name], "RdBu_r") for name in names]
    return _grid(grid, shape), (
        "Attributions of the true class's logit by captum, each on its own scale; integrated "
        "gradients from the image of the mean pixel."
    )


def _grid(rows: Sequence[tuple[str, np.ndarray, str]], shape: Sequence[int]) -> Figure:
    across = len(rows[0][1])
    size = {"width": 2.2 + 0.75 * across, "height": 0.78 * len(rows)}
    figure, axes = panels(across, **size, down=len(rows), squeeze=False)
    for line, (name, values, colours) in zip(axes, rows, strict=True):
        for axis, row in zip(line, values, strict=True):
            _show(axis, row, shape, colours)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _show(axis: Axes, row: np.ndarray, shape: Sequence[int], colours: str) -> None:
    """Draws an image in [0, 1], or a signed one (the sum over its colours) on its own scale."""
    picture = row.reshape([size for size in shape if size > 1])
    if colours == "gray":
        axis.imshow(np.moveaxis(picture, 0, -1) if picture.ndim == 3 else picture,
                    cmap="gray", vmin=0, vmax=1)  # fmt: skip
    else:
        signed = picture.sum(0) if picture.ndim == 3 else picture
        most = np.abs(signed).max() or 1.0
        axis.imshow(signed, cmap=colours, vmin=-most, vmax=most)
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)


def _samples(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _rows_of(lines)
    down = -(-len(found) // 4)
    figure, axes = panels(4, height=2.3 * down, down=down)
    for axis, (name, arrays) in zip(axes.flat, found.items(), strict=False):
        axis.imshow(tiles(arrays["samples"], shape, 5), cmap="gray", vmin=0, vmax=1)
        dense = lines[name].interval("samples/log density").value
        axis.set_title(f"{name}\nlog p / D = {dense:.2f}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure, (
        "Pictures of activity maximisation, and their mean log-density a dimension under the "
        "reference (nats)."
    )


PICTURES: dict[str, Callable[[Lines, Sequence[int]], Captioned]] = {
    "gradients": _gradients,
    "samples": _samples,
    "attributions": _attributions,
}
"""By name, in the order of the page."""
