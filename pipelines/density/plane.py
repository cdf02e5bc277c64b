"""Pictures of a flow of two columns: rows, samples, and its density, energy and score."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ebflow.flow import Flow
from pipelines.data.manifest import Manifest
from pipelines.density.fit import Fit
from pipelines.reporting import plane
from pipelines.reporting.result import Plot
from pipelines.reporting.style import panels

# Kinds of columns whose values are not points of a plane: they have probabilities, or noise.
DISCRETE = ("exact", "grids", "levels", "atoms")

CAPTION = (
    "Test rows, exact samples of the flow, its density, its energy, and its score: the gradient "
    "of the log-density, with the longer half of the arrows cut to one length. The energy lacks "
    "the normalizer; its colours end 12 nats above the least. All have the same units."
)


def plots(flow: Flow, manifest: Manifest, steps: Mapping[str, Any], fit: Fit) -> Iterator[Plot]:
    """Yields the picture of a flow of two columns of real numbers without context.

    ``steps`` are the preprocessing of a table's columns.
    """
    columns = manifest.columns
    continuous = (
        columns is not None
        and not any(steps.get(kind) for kind in DISCRETE)
        and not any(column.size for column in columns.modelled)
    )
    if manifest.width != 2 or manifest.context or not continuous or not len(fit.y):
        return
    x, y = (rows.double().numpy() for rows in (fit.x, fit.y))
    square = plane.around(x[np.isfinite(x).all(1)])
    arrays = plane.evaluate(flow, square)
    figure, axes = panels(5, 11, 2.8)
    for axis, rows, title in zip(axes, (x, y), ("test rows", "samples"), strict=False):
        plane.draw_rows(axis, rows, square)
        axis.set_title(title)
    for axis, picture in zip(axes[2:], plane.PICTURES, strict=True):
        plane.draw(axis, picture, arrays, square)
        axis.set_title(picture)
    first, second = fit.names
    axes[0].set_xlabel(first, parse_math=False)
    axes[0].set_ylabel(second, parse_math=False)
    yield Plot("plane", figure, CAPTION, "The density in the plane")
