"""Figures and the page, from numbers made up here."""

import base64
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from ebflow.data.prepare import prepare
from pipelines.density.figures import figures, page

NUMBERS = {
    "test/nll": 97.5, "test/nll_se": 0.6, "test/bpd": 2.2, "best/val_nll": 97.4,
    "test/gain": 6.7, "test/gain_se": 0.2,
    "test/gain_over_mixture": 1.2, "test/gain_over_mixture_se": 0.3,
    "baseline/gaussian_nll": 104.2, "baseline/gaussian_nll_se": 0.7,
    "baseline/gaussian_bpd": 2.35, "baseline/gaussian_val_nll": 104.1,
    "baseline/mixture_nll": 98.7, "baseline/mixture_nll_se": 0.7,
    "baseline/mixture_bpd": 2.25, "baseline/mixture_val_nll": 98.8,
    "baseline/contexts": 0, "baseline/mixture_components": 4, "baseline/mixture_full": 1,
}  # fmt: skip


def told():
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


@pytest.fixture(params=["images", "table"])
def drawn(request, tmp_path):
    """The manifest, and PNG files by name."""
    generator = np.random.default_rng(0)
    if request.param == "images":
        manifest = prepare("digits", tmp_path / "data")
        x, y = generator.integers(0, 17, (2, 100, 64))
    else:
        tabular = request.getfixturevalue("tabular_file")
        manifest = prepare(tabular, tmp_path / "data")
        x, y = generator.normal(size=(2, 100, 10))
    images = {}
    for name, figure in figures(told(), NUMBERS, manifest, x, y).items():
        images[name] = tmp_path / f"{name}.png"
        figure.savefig(images[name])
    return manifest, images


def test_figures_show_something(drawn):
    assert set(drawn[1]) == {"training", "samples", "diagnosis"}
    for path in drawn[1].values():
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300
        assert 0.01 < np.mean(pixels[..., :3].min(-1) < 0.9) < 0.99, path.name


def test_a_bad_start_does_not_hide_the_end_of_training(drawn, tmp_path):
    figure = figures(told(), NUMBERS, drawn[0], np.ones((1, 64)), np.ones((1, 64)))["training"]
    low, high = figure.axes[0].get_ylim()
    assert low < 97 and 104.1 < high < 120


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


def test_the_page_is_whole_and_needs_nothing_else(drawn):
    manifest, images = drawn
    html = page(NUMBERS, manifest, "seed: <0>\n", "ended after 400 steps", images)
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    decoded = [base64.b64decode(src.partition("base64,")[2]) for src in tags.images]
    assert decoded == [images[name].read_bytes() for name in ("training", "samples", "diagnosis")]
    assert "seed: &lt;0&gt;" in html and "97.50" in html and "104.20" in html
    assert "mixture of 4 Gaussians" in html and "-1.20 ± 0.30" in html
    assert 'class="warnings"' not in html
    assert not re.search(r"https?://", html)


def test_warnings_stand_before_everything_else(drawn):
    manifest, images = drawn
    warned = ["the flow is worse than a <mixture>", "many rows are equal"]
    html = page(NUMBERS, manifest, "seed: 0\n", "ended after 400 steps", images, warned)
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    first, second = (html.index(text) for text in ("worse than a &lt;mixture&gt;", warned[1]))
    assert html.index("<h1>") < first < second < html.index("<p>") < html.index("<table>")
