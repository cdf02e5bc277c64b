"""The picture of a flow of two columns in the report of the density pipeline."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebflow.bijections import Affine
from ebflow.flow import Flow
from ebflow.tables import Column
from pipelines.density import plane


def setting(width=2, levels=0, context=None, samples=50):
    """Returns a flow of N(0, 4 I), and the parts of a manifest and a fit that matter."""
    names = [f"x{k + 1}" for k in range(width)]
    columns = [Column(name, "number", "float64") for name in names]
    if levels:
        columns[1] = SimpleNamespace(size=levels)
    manifest = SimpleNamespace(
        columns=SimpleNamespace(modelled=columns), width=width, context=context
    )
    flow = Flow((width,), [Affine(0.0, 0.5, (width,))]).double()
    rows = 2 * torch.randn(200, width, generator=torch.Generator().manual_seed(0))
    fit = SimpleNamespace(x=rows, y=rows[:samples], names=names)
    return flow, manifest, fit


def test_two_columns_show_rows_samples_density_energy_and_score():
    flow, manifest, fit = setting()
    (plot,) = plane.plots(flow, manifest, {"tails": ["x1"], "grids": {}}, fit)
    titles = [axis.get_title() for axis in plot.figure.axes]
    assert titles == ["test rows", "samples", "density", "energy", "score"]
    (density,) = plot.figure.axes[2].images
    left, right, bottom, top = density.get_extent()
    values = density.get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    x = left + (right - left) * (column + 0.5) / values.shape[1]
    y = bottom + (top - bottom) * (row + 0.5) / values.shape[0]
    assert max(abs(x), abs(y)) < 0.1  # the peak of N(0, 4 I)
    assert values.max() == pytest.approx(1 / (8 * np.pi), rel=0.01)
    assert plot.figure.axes[0].get_xlabel() == "x1"


NONE = {
    "three columns": ({"width": 3}, {}),
    "a context": ({"context": object()}, {}),
    "a category": ({"levels": 3}, {}),
    "integers": ({}, {"grids": {"x2": 1.0}}),
    "repeated values": ({}, {"atoms": ["x1"]}),
    "no finite sample": ({"samples": 0}, {}),
}


@pytest.mark.parametrize("case", NONE)
def test_other_data_have_no_density_in_the_plane(case):
    options, steps = NONE[case]
    flow, manifest, fit = setting(**options)
    assert [*plane.plots(flow, manifest, steps, fit)] == []
