"""Many rows are processed in parts: bounded memory, the same bits, the same gradients."""

import pytest
import torch

from ebflow import architectures, batching
from ebflow.bijections import Affine, Dense, Dequantize
from ebflow.flow import Flow

from .bijections.cases import seeded
from .flows import contexts, stirred

N = 896  # of contexts, a multiple of 32, without which last bits may differ
MAKE = {
    "dense": lambda: architectures.dense((3,), depth=2),
    "autoregressive": lambda: architectures.autoregressive((3,), depth=2, bins=4, context=2),
    "float32": lambda: architectures.autoregressive((3,), depth=2, bins=24, dtype=torch.float32),
    "affine in the context": lambda: architectures.dense((3,), depth=2, context=2),
    "integers": lambda: Flow((3,), [Dequantize(17), Affine(8.0, 4.0, (3,))]),
}


def scores(flow, x, c):
    noisy = flow(c).log_prob(x, generator=seeded(1))
    return flow(c).log_prob(x), flow(c).score(x), flow(c).to_latent(x), noisy


def samples(flow, x, c):
    shape, options = () if flow.context else len(x), {"context": c, "generator": seeded(2)}
    return flow.sample(shape, **options), *flow.sample_and_log_prob(shape, **options)


@pytest.mark.parametrize("name", MAKE)
def test_results_do_not_depend_on_the_parts(name, monkeypatch):
    """Scores bit for bit; with as many contexts as rows, with as many or fewer, repeated."""
    flow = stirred(MAKE[name]())
    x = torch.randint(17, (N, 3), generator=seeded()).to(flow.dtype)
    c = contexts(flow, N)
    cases = [(x, c), (x[:-1], None if c is None else c[:-1])]
    if c is not None:
        cases += [(x.expand(2, N, 3), c), (x[:, None].expand(N, 7, 3), c[:7])]
    expected = [(scores(flow, *case), samples(flow, *case)) for case in cases]
    monkeypatch.setattr(batching, "BUDGET", 1)
    monkeypatch.setattr(batching, "FEW", 230)  # 32 times 7 contexts fit
    assert len(batching.parts(N, flow.layers, (3,), 8)) == 4
    for case, (scored, sampled) in zip(cases, expected, strict=True):
        assert all(map(torch.equal, scores(flow, *case), scored))
        torch.testing.assert_close(samples(flow, *case), sampled)


def test_a_row_of_near_collinear_columns_has_its_score_in_every_batch():
    """Whitening multiplies the differences of such columns, and rounding, by about 10⁴."""
    x = torch.randn(200, 12, generator=seeded())
    x[:, 6:] = x[:, :6] + 1e-4 * x[:, 6:]
    values, vectors = torch.linalg.eigh(x.double().T.cov())
    whiten = Dense(vectors * values.rsqrt() @ vectors.mT, None, trainable=False)
    flow = Flow((12,), [whiten], n_preprocessing=1).float().eval()
    alone = torch.cat([flow.log_prob(row[None]) for row in x])
    torch.testing.assert_close(alone, flow.log_prob(x), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["dense", "autoregressive"])
def test_parts_have_the_gradients_of_the_whole(name, monkeypatch):
    flow = stirred(MAKE[name]())
    x, c = torch.randn(N, 3, generator=seeded()), contexts(flow, N)
    gradients = []
    for budget in (batching.BUDGET, 1):
        monkeypatch.setattr(batching, "BUDGET", budget)
        point = x.to(flow.dtype).requires_grad_()
        total = (flow.log_prob(point, context=c) + flow.score(point, context=c).sum(1)).sum()
        gradients.append(torch.autograd.grad(total, [point, *flow.layers[0].parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_scores_of_a_frozen_flow_keep_no_graph(monkeypatch):
    """Otherwise the memory of all parts would add up."""
    monkeypatch.setattr(batching, "BUDGET", 1)
    flow = MAKE["autoregressive"]().requires_grad_(False)
    x = torch.zeros(N, 3, dtype=flow.dtype)
    assert not flow.score(x, context=contexts(flow, N)).requires_grad
    with torch.no_grad():
        assert not flow.requires_grad_().score(x[:5], context=contexts(flow, 5)).requires_grad


class Recording(Affine):
    """The identity, which records the numbers of rows that it processes."""

    def __init__(self):
        super().__init__(0.0, 1.0, (5,))
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return super().forward(x)

    def linearize(self, x, **options):
        self.rows.append(len(x))
        return super().linearize(x, **options)

    def inverse(self, y):
        self.rows.append(len(y))
        return super().inverse(y)


@pytest.mark.parametrize("method", ["log_prob", "score", "to_latent", "sample"])
def test_the_memory_of_many_rows_is_bounded(method, monkeypatch):
    monkeypatch.setattr(batching, "BUDGET", 1 << 24)
    splines = architectures.autoregressive((5,), depth=1, bins=8, hidden=8).layers[0]
    flow = Flow((5,), [Recording(), splines])
    getattr(flow, method)(5000 if method == "sample" else torch.zeros(5000, 5))
    outputs = 5 * splines.transform.count
    largest = max(flow.layers[0].rows) * (5 + outputs) * flow.dtype.itemsize * batching.COPIES
    assert 0.9 * batching.BUDGET <= largest <= batching.BUDGET
    assert sum(set(flow.layers[0].rows)) < 5000 <= sum(flow.layers[0].rows)


def test_the_default_budget_bounds_the_parts_of_a_usual_flow():
    flow = architectures.autoregressive((10,), bins=8)
    slices = batching.parts(10**6, flow.layers, (10,), 4)
    assert 1_000 < slices[0].stop < 100_000 and len(slices) > 10


@pytest.mark.parametrize("period", [1, 7, 60, 64, 65, 500])
@pytest.mark.parametrize("periods", [0, 1, 9, 142])
def test_slices_cover_all_rows_and_none_is_short(period, periods, monkeypatch):
    monkeypatch.setattr(batching, "BUDGET", 1)
    count = period * periods
    slices = batching.parts(count, [], (3,), 4, period=period)
    assert [k for part in slices for k in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in slices]
    assert min(sizes) >= min(count, 16) and max(sizes) <= 4 * batching.FEW + 15
    whole = all(size % period == 0 for size in sizes)
    assert whole or all(part.start // period == (part.stop - 1) // period for part in slices)
