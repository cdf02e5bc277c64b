"""Figures and the page, from numbers made up here."""

import base64
import html
import io
import itertools
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ebflow.tables.column import Column
from pipelines.config import DensityConfig
from pipelines.data.dataset import Dataset
from pipelines.density import fit
from pipelines.density.report import _name_levels, plots, result
from pipelines.reporting.page import page
from pipelines.reporting.style import panels
from tests.prepared import prepare

NUMBERS = {
    "test/nll": 97.5, "test/nll_se": 0.6, "test/bpd": 2.2, "best/val_nll": 97.4,
    "test/gain": 6.7, "test/gain_se": 0.2,
    "test/gain_over_mixture": 1.2, "test/gain_over_mixture_se": 0.3,
    "baseline/gaussian_nll": 104.2, "baseline/gaussian_nll_se": 0.7,
    "baseline/gaussian_bpd": 2.35, "baseline/gaussian_val_nll": 104.1,
    "baseline/mixture_nll": 98.7, "baseline/mixture_nll_se": 0.7,
    "baseline/mixture_bpd": 2.25, "baseline/mixture_val_nll": 98.8,
    "baseline/contexts": 0, "baseline/mixture_components": 4, "baseline/mixture_full": 1,
    "train/best_step": 400, "train/steps": 400, "train/steps_per_s": 50.0, "time/train_s": 8.0,
    "time/share_outside_step": 0.1, "val/rows": 10,
}  # fmt: skip


def logged():
    validations = [
        {
            "kind": "validate", "step": step, "time": 0.0,
            "metrics": {
                "val/nll": 97 + 1e3 * np.exp(-step / 50), "train/nll": 95.0,
                "time/train_s": step / 100, "latent/mean_norm2": 0.1,
                "latent/var_min": 0.7, "latent/var_max": 1.2,
            },
        }
        for step in range(0, 500, 100)
    ]  # fmt: skip
    logs = [
        {"kind": "log", "step": step, "time": 0.0, "metrics": {"train/loss": 400.0 - step}}
        for step in range(50, 500, 50)
    ]
    return validations + logs


class Density:
    """Stands for a flow whose samples are given."""

    batch_shape = ()

    def __init__(self, y):
        self.y = y

    def __call__(self, context):
        return self

    def sample_tensor(self, shape, generator):
        return self.y[: shape[0]].clone()

    def explain(self, x, context):
        return SimpleNamespace(reasons=lambda row, at_most: [f"value {x[row, 0]:g}"])


MADE = {"command": "ebflow run <density>", "config": "seed: <0>\n"}
LONG = "a name of very many words [and its unit] that goes on_and_on_and_on for longer than a line"


def table(folder, *, names, rows=300):
    """Prepares a table of correlated columns: counts, a flag, heavy tails, an offset."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, len(names))) @ generator.normal(size=(len(names),) * 2)
    x[:, 0] = x[:, 0].round()
    if len(names) > 2:
        x[:, 1], x[:, 2] = x[:, 1] > 0, np.exp(x[:, 2]) + 1e6
    pq.write_table(pa.table(dict(zip(names, x.T, strict=True))), folder / "table.parquet")
    return prepare(folder / "table.parquet", folder / "data")


@pytest.fixture(scope="module", params=["images", "table", "many columns", "one column"])
def reported(request, tmp_path_factory):
    """Everything on a page, and PNG files by name."""
    folder = tmp_path_factory.mktemp("reported")
    columns = {"one column": ["alone"], "many columns": [f"{k} {LONG}" for k in range(15)]}
    if request.param == "images":
        manifest = prepare("digits", folder / "data")
    else:
        usual = ["count", "flag", "$_{ or $", LONG]
        manifest = table(folder, names=columns.get(request.param, usual))
    dataset = Dataset(folder / "data")
    y = next(dataset.split("train").batches(90)).x.flip(0)
    return page_of(dataset, manifest, Density(y), folder)


def page_of(dataset, manifest, flow, folder):
    count = manifest.counts["test"]
    log_probs = {"test": -np.arange(count)[::-1] - 90.0, "train": -np.arange(50.0) - 80}
    found = fit.measured(flow, dataset, 0, log_probs["test"])
    shown = plots(manifest, logged(), NUMBERS, found, log_probs)
    figures = {plot.name: plot.figure for plot in shown}
    images = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(images[name])

    def written(warnings=(), numbers=NUMBERS):
        training = {"verdict": "ended after 400 steps", "warnings": warnings, "workers": "1"}
        training["model"] = {"method": "dsm on dense", "architecture": "dense", "base": "normal"}
        return page(
            result(
                DensityConfig(), manifest, numbers, training, {}, found, shown
            ),
            images,
            **MADE,
        )  # fmt: skip

    return SimpleNamespace(
        dataset=dataset, manifest=manifest, figures=figures, images=images, fit=found,
        page=written,
    )  # fmt: skip


def test_figures_show_something(reported):
    expected = {"training", "likelihood"}
    if reported.fit.is_image:
        expected.add("samples")
    else:
        expected.add("columns")
    assert set(reported.images) == expected
    for path in reported.images.values():
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 100
        assert 0.01 < np.mean(pixels[..., :3].min(-1) < 0.9) < 0.99, path.name


def test_no_labels_of_ticks_overlap(reported):
    for name, figure in reported.figures.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                texts = [text for text in axis.get_ticklabels() if text.get_text()]
                boxes = [text.get_window_extent(renderer) for text in texts]
                for one, two in itertools.combinations(boxes, 2):
                    assert not one.overlaps(two), name


def test_lines_are_told_apart_without_colours(reported):
    for name, figure in reported.figures.items():
        for axes in figure.axes:
            lines = [line for line in axes.lines if not line.get_label().startswith("_")]
            styles = [(line.get_linestyle(), line.get_marker()) for line in lines]
            assert len(set(styles)) == len(styles), name


def test_a_bad_start_does_not_hide_the_end_of_training(reported):
    low, high = reported.figures["training"].axes[0].get_ylim()
    assert low < 97 and 104.1 < high < 120


def test_every_column_is_named_and_the_worst_is_found(reported):
    if reported.fit.is_image:
        assert not reported.fit.values
        return
    axes = reported.figures["columns"].axes
    labels = [title for axis in axes if (title := axis.get_title())]
    names, shapes = reported.fit.names, reported.fit.shapes
    assert len(labels) == len(names)
    assert all(label.startswith(name[:10]) for label, name in zip(labels, names, strict=True))
    worst = names[int(shapes.argmin())]
    assert f"lowest: {worst} {shapes.min():.3f}" in html.unescape(reported.page())
    assert reported.fit.values["column shapes"][worst] == shapes.min()


def test_the_least_likely_rows_are_those_of_the_source(reported):
    """The log-densities above rise with the row."""
    split = reported.dataset.split("test")
    numbers = reported.dataset.column(reported.manifest.of("test"), "row")
    rows, log_probs, reasons = zip(*reported.fit.least, strict=True)
    assert rows == tuple(map(str, numbers[:10].tolist()))
    assert [float(text) for text in log_probs] == sorted(map(float, log_probs))
    first = f"value {split.tensor()[0, 0]:g}"
    assert reasons[0] == ("" if reported.fit.is_image else first)
    assert all(f">{row}<" in reported.page() for row in rows)
    held_out = reported.manifest.counts["validation"]
    assert f"chosen by 10 of {held_out} validation rows" in reported.page()


@pytest.mark.parametrize("shape", [(4, 4), (65,)])
def test_images_and_wide_rows_have_no_reasons(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(90, *shape)))
    prepare(tmp_path / "x.npy", tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    log_probs = np.zeros(dataset.manifest.counts["test"])
    found = fit.measured(Density(torch.zeros(90, math.prod(shape))), dataset, 0, log_probs)
    assert {reasons for *_, reasons in found.least} == {""}


def test_samples_that_are_not_finite_are_left_out_and_told(tmp_path):
    manifest = table(tmp_path, names=["a", "b", "c"])
    dataset = Dataset(tmp_path / "data")
    y = next(dataset.split("train").batches(90)).x
    y[7, 1] = math.inf
    log_probs = np.zeros(manifest.counts["test"])
    found = fit.measured(Density(y), dataset, 0, log_probs)
    assert found.lost == 1 and len(found.y) == 29 and found.y.isfinite().all()
    assert "1 of 30 samples are not finite" in found.warnings[0]
    assert manifest.columns.names == ["a", "b", "c"]


class Tags(HTMLParser):
    """Collects tags, and checks that they close."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self):
        super().__init__()
        self.open, self.images = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(reported):
    html = reported.page()
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    decoded = [base64.b64decode(src.partition("base64,")[2]) for src in tags.images]
    assert set(decoded) == {path.read_bytes() for path in reported.images.values()}
    assert "seed: &lt;0&gt;" in html and "97.50" in html and "104.20" in html
    assert "mixture of 4 Gaussians" in html and "-1.20 ± 0.30" in html
    assert "lower than that of a mixture of 4 Gaussians, by 1.20 ± 0.30 nats a row" in html
    assert "ebflow run &lt;density&gt;" in html
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", html)
    assert 'class="warnings"' not in html
    assert not re.search(r"https?://", html)


def test_warnings_stand_before_everything_else(reported):
    warned = ["the flow is worse than a <mixture>", "many rows are equal"]
    html = reported.page(warnings=warned)
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    first, second = (html.index(text) for text in ("worse than a &lt;mixture&gt;", warned[1]))
    assert html.index("<h1>") < first < second < html.index("<p ") < html.index("<table>")


@pytest.mark.parametrize(("gain", "error", "text"), [
    (1.2, 0.3, "lower than that of a mixture of 4 Gaussians, by 1.20 ± 0.30 nats"),
    (-1.2, 0.3, "higher than that of a mixture"),
    (0.5, 0.3, "within two standard errors of that of a mixture"),
    (-0.004, 0.003, "that of a mixture of 4 Gaussians (higher by 0.0040 ± 0.0030 nats"),
    (0.0, 0.0, "of the test rows is that of a mixture of 4 Gaussians."),
])  # fmt: skip
def test_the_result_is_said_in_words(reported, gain, error, text):
    changed = {**NUMBERS, "test/gain_over_mixture": gain, "test/gain_over_mixture_se": error}
    html = reported.page(numbers=changed)
    assert text in " ".join(html.split())


def test_levels_of_a_category_are_named():
    figure, axis = panels(1)
    _name_levels(axis, Column("price", "category", "object", levels=("$_$", "more")))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["$_$", "more"]
    figure.savefig(io.BytesIO())
