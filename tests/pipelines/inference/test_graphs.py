"""Flows as graphs of tensors: the same log-densities for any number of rows."""

import pytest
import torch

import ebflow
from ebflow import preprocessing
from ebflow.bijections import Dequantize
from ebflow.randomness import RowGenerator, generator, uniform
from ebflow.recipes import IMAGES
from ebflow.tables.rows import Rows
from pipelines.inference.exporting import Graph, traced
from tests.library.conftest import double_precision  # noqa: F401


def columns(n=400):
    """Correlated reals, a bounded one, and counts, which lie on a grid."""
    x = torch.randn(n, 4, generator=generator(0, "rows"), dtype=torch.float64)
    x[:, 1] = (x[:, 0] + x[:, 1]).exp()
    x[:, 2] = (2 * x[:, 2] + 8).round()
    return x


def categories(n=400):
    """The same with a level of three instead of the last column."""
    x = columns(n)
    x[:, 3] = torch.randint(0, 3, (n,), generator=generator(0, "levels"))
    return x


def images(n=400):
    return torch.randint(0, 17, (n, 1, 4, 4), generator=generator(0, "images"), dtype=torch.uint8)


def flow_of(name, *, exact=False, **options):
    """A flow of a kind behind its preprocessing, and rows of raw data in its type."""
    image = name in IMAGES
    x = images() if image else categories() if exact else columns()
    levels = {"levels": 17} if image else {}
    columns_of = {"grids": True, "tails": True, "exact": exact}
    fitted = {"shrinkage": 0.1, "pixels": name == "pixelcnn"} if image else columns_of
    make = ebflow.architectures.ARCHITECTURES[name]
    chain = preprocessing.fit(Rows(x.flatten(1), **levels), **fitted)
    options |= chain.architecture_options
    inner = make((1, 4, 4) if image else (4,), generator=generator(0, "weights"), **options)
    flow = inner.preprocessed(chain, shape=x.shape[1:])
    flow.initialize(x)
    return flow, x.to(flow.device, flow.dtype)


KINDS = {
    "dense": ("dense", {}),
    "splines": ("dense", {"activation": "spline", "depth": 1}),
    "couplings": ("coupling", {"depth": 2}),
    "autoregressive": ("autoregressive", {"depth": 1, "bins": 8}),
    "categories": ("autoregressive", {"depth": 1, "bins": 8, "exact": True}),
    "convolutions": ("convolutional", {"kernel_size": 3, "depth": 1}),
    "spectral norm": ("convolutional", {"kernel_size": 3, "depth": 1, "spectral_norm": True}),
    "pixels": ("pixelcnn", {"hidden": 4, "depth": 2}),
    "glow": ("glow", {"levels": 1, "depth": 1, "hidden": 8}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_gives_the_flows_log_density_for_any_number_of_rows(kind):
    name, options = KINDS[kind]
    flow, x = flow_of(name, **options)
    graph = Graph(flow)
    assert graph.inputs == ("x", "noise")
    called = traced(graph).module()
    for rows in (x, x[:1]):
        noise = uniform(rows.shape, rows, RowGenerator(3, "noise"))
        expected = flow.log_prob(rows, generator=RowGenerator(3, "noise"))
        found = called(x=rows, noise=noise)
        assert found.shape == (len(rows),) and expected.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_reals_take_no_noise_and_a_mixture_is_a_base():
    x = columns()[:, [0, 3]]
    base = ebflow.GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0], [1, 0]]), torch.ones(2))
    flow = ebflow.architectures.dense((2,), depth=1, base=base)
    flow = flow.preprocessed(preprocessing.fit(Rows(x)))
    graph = Graph(flow)
    assert graph.inputs == ("x",)
    x = x.to(flow.device, flow.dtype)
    torch.testing.assert_close(traced(graph).module()(x=x), flow.log_prob(x))


@pytest.mark.parametrize("name", ["dense", "coupling", "autoregressive"])
def test_a_conditional_flow_takes_a_context_for_every_row(name):
    draw = generator(0, "contexts")
    flow = ebflow.architectures.ARCHITECTURES[name]((3,), context=2, depth=1, generator=draw)
    for weight in flow.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=draw)
    flow.standardize_context(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))
    graph = Graph(flow)
    assert graph.inputs == ("x", "context")
    x, context = torch.randn(50, 3, generator=draw), torch.randn(50, 2, generator=draw)
    found = traced(graph).module()(x=x, context=context)
    torch.testing.assert_close(found, flow(context).log_prob(x))
    assert (found - flow(context + 1).log_prob(x)).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_never_reaches_the_next_level(dtype):
    """The largest number below 1 is rounded up to 1 beside a large level."""
    x = torch.arange(256).view(-1, 1)
    like = torch.zeros((), dtype=dtype)
    noise = torch.full((256, 1), 1 - torch.finfo(dtype).eps / 2, dtype=dtype)
    found = Dequantize(256).add_noise(x, like, noise)
    y = x.to(dtype)
    assert torch.equal(found, torch.minimum(y + noise, torch.nextafter(y + 1, y)))
    assert torch.equal(found.floor(), y)
