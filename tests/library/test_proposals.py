"""Marginal likelihoods of incomplete rows against closed forms."""

import math

import pandas as pd
import pytest
import torch

import ebflow
from ebflow import target
from ebflow.bijections import Cells, ColumnCells, Knot
from ebflow.conditioning import Conditional
from ebflow.proposals import SMALL, Proposals
from ebflow.randomness import generator
from ebflow.target import Target

from .bijections.cases import stirred
from .test_explanation import gaussian, of_categories
from .test_imputation import positive

NAN = math.nan


def mixture():
    """A flow whose density is a mixture of two Gaussians."""
    means = torch.tensor([[-4.0, 0.0, 1.0], [3.0, 1.0, -2.0]]).double()
    roots = torch.randn(2, 3, 3, generator=generator(5)).double() + 2 * torch.eye(3)
    base = ebflow.GaussianMixture(torch.tensor([0.7, 0.3]).double(), means, roots @ roots.mT)
    return ebflow.Flow((3,), [], base=base).double(), base


def test_observed_values_of_a_mixture_have_their_marginal_density():
    flow, base = mixture()
    x = flow.sample(40, generator=generator(1))
    expected = base.marginal([0, 2]).log_prob(x[:, [0, 2]])
    x[:, 1] = NAN
    found, error = flow.log_prob_and_error(x)
    z = (found - expected) / error
    assert z.abs().max() < 4.5 and z.square().mean() < 2 and error.max() < 0.1


def test_a_gaussians_marginals_and_rows_without_values():
    flow, precision = gaussian(narrow=30)
    covariance = torch.linalg.inv(precision)
    x = flow.sample(20, generator=generator(2))
    expected = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), covariance[1:3, 1:3]
    ).log_prob(x[:, 1:3])
    x[:, [0, 3]] = NAN
    found, error = flow.log_prob_and_error(x)
    assert ((found - expected) / error).abs().max() < 4.5 and error.max() < 0.1
    nothing = flow.log_prob_and_error(torch.full((1, 4), NAN).double())
    assert torch.stack(nothing).tolist() == [[0.0], [0.0]]


def test_complete_rows_are_unchanged_and_rows_do_not_depend_on_others():
    flow, _ = mixture()
    x = flow.sample(30, generator=generator(3))
    complete = flow.log_prob(x)
    some = x.clone()
    some[::2, 0] = NAN
    found, error = flow.log_prob_and_error(some)
    torch.testing.assert_close(found[1::2], complete[1::2])
    assert (error[1::2] == 0).all() and (error[::2] > 0).all()
    assert torch.equal(flow.log_prob_and_error(x)[0], complete)
    torch.testing.assert_close(flow.log_prob(some[4:5])[0], found[4])
    assert torch.equal(flow.log_prob(some), found)


def test_missing_values_stay_within_known_bounds():
    """A column on [0, ∞) whose density, N(0, 1), has half of its mass outside."""
    found = positive().log_prob(torch.tensor([[NAN, 0.0]]).double())
    expected = math.log(0.5) - 0.5 * math.log(2 * math.pi)
    assert float(found) == pytest.approx(expected, abs=0.15)


def test_an_impossible_observed_value_makes_the_row_impossible():
    rows = torch.tensor([[-1.0, 0.0], [-1.0, NAN], [1.0, NAN]]).double()
    found, error = positive().log_prob_and_error(rows)
    assert found[:2].tolist() == [-math.inf] * 2 and (error[:2] == 0).all()
    assert found[2].isfinite() and error[2] > 0


def test_values_beyond_levels_are_outside():
    target = Target.of(of_categories((3, 4)))
    z = torch.tensor([[0.1, 3.9], [2.9, 0.0], [3.1, 0.0], [-0.1, 1.0]]).double()
    assert target.outside(z)[:, 0].tolist() == [False, False, True, True]


def test_many_missing_categories():
    """Of one category given nothing else, whose levels are equally likely at the start."""
    sizes = (10,) * 20
    flow = of_categories(sizes)
    rows = torch.full((4, 20), NAN).double()
    rows[:3, [0, 7, 19]] = torch.where(torch.eye(3) > 0, 3.0, NAN).double()
    found, error = flow.log_prob_and_error(rows)
    expected = torch.tensor([0.1, 0.1, 0.1, 1.0]).double().log()
    assert ((found - expected).abs() < 3 * error + 1e-6).all() and error.max() < 0.1


def test_missing_categories_and_reals_sum_to_their_marginals():
    """A category that reals depend on, and one that depends on it."""
    flow = stirred(of_categories((0, 3, 0, 4)), 0.1).eval().requires_grad_(False)
    x = flow.sample(30, generator=generator(6))
    x[:, 1] = NAN
    levels = torch.arange(3).double()
    rows = x[:, None].repeat(1, 3, 1)
    rows[..., 1] = levels
    expected = flow.log_prob(rows).logsumexp(1)
    found, error = flow.log_prob_and_error(x)
    torch.testing.assert_close(found, expected)
    assert (error == 0).all()
    x[:, 2] = NAN
    line = torch.linspace(-12, 12, 1001).double()
    rows = rows[:10, :, None].repeat(1, 1, 1001, 1)
    rows[..., 2] = line
    log_p = flow.log_prob(rows.flatten(0, 2)).view(10, -1)
    expected = log_p.logsumexp(1) + math.log(float(line[1] - line[0]))
    found, error = (t[:10] for t in flow.log_prob_and_error(x))
    z = (found - expected) / error
    assert z.abs().max() < 4.5 and z.square().mean() < 2 and error.max() < 0.3


def test_the_score_of_an_incomplete_row_depends_on_the_row_alone():
    """Of a table of numbers, levels and atoms, in one batch with others, shuffled, and alone."""
    columns = [
        ColumnCells(),
        ColumnCells(step=1.0, least=0, most=2),
        ColumnCells(knots=[Knot(0.0, width=1.0)]),
        ColumnCells(step=1.0, least=0, most=3),
    ]
    flow = stirred(of_categories((0, 3, 0, 4)), 0.1).eval().requires_grad_(False)
    flow.layers[0] = Cells(columns)
    x = flow.sample(24, generator=generator(8))
    x[torch.rand(x.shape, generator=generator(9)) < 0.4] = NAN
    x[:6, 0], x[:6, [1, 3]] = NAN, 1.0
    x[6:12, [1, 3]], x[6:12, 0] = NAN, 0.5
    together, order = flow.log_prob(x), torch.randperm(24, generator=generator(7))
    torch.testing.assert_close(flow.log_prob(x[order]), together[order])
    torch.testing.assert_close(torch.cat([flow.log_prob(row[None]) for row in x]), together)
    for some in (slice(6), slice(6, 12), slice(3, 9)):
        torch.testing.assert_close(flow.log_prob(x[some]), together[some])


def test_rows_with_small_errors_take_few_proposals(monkeypatch):
    """A Gaussian's are its own conditional samples, and a mixture's are nearly."""
    counts = []

    def recorded(self, z):
        counts.append(z.shape[:2].numel())
        return log_ratios(self, z)

    log_ratios = Proposals.log_ratios
    monkeypatch.setattr(Proposals, "log_ratios", recorded)
    x = gaussian()[0].sample(40, generator=generator(1))
    x[:, 1] = NAN
    error = gaussian()[0].log_prob_and_error(x)[1]
    assert sum(counts) <= 40 * 64 and 0 < error.max() <= SMALL


def test_poor_estimates_are_warned_of_and_zero_weights_have_an_infinite_error():
    """No proposal is within the narrow bounds of all missing columns."""
    flow = ebflow.Flow((30,), [Cells([ColumnCells()] * 30)], n_preprocessing=1).double()
    flow.layers[0].bound(*torch.tensor([[0.0], [1e-9]]).double().expand(2, 30))
    rows = torch.zeros(1, 30).double()
    rows[:, 1:] = NAN
    with pytest.warns(RuntimeWarning, match=r"standard errors above 0\.3 in 1 of 1 rows"):
        flow.log_prob(rows)
    found, error = flow.log_prob_and_error(rows)
    assert float(found) == -math.inf and float(error) == math.inf


def test_frames_and_contexts():
    x = torch.randn(300, 2, generator=generator(4)).double()
    frame = pd.DataFrame(x.numpy(), columns=["a", "b"]).assign(c=x.sum(1).numpy() ** 2)
    flow = ebflow.fit(frame, context=["c"], steps=3, progress=False)
    frame.loc[0, "a"] = None
    found, error = flow.log_prob_and_error(frame.head(4))
    assert found.isfinite().all() and error[0] > 0 and (error[1:] == 0).all()
    frame.loc[1, "c"] = None
    with pytest.raises(ValueError, match="context"):
        flow.log_prob(frame.head(4))


@pytest.mark.parametrize("method", ["explain", "impute", "log_prob"])
def test_the_memory_of_many_incomplete_rows_is_bounded(method, monkeypatch):
    """The Gaussians of a row take some matrices with shape (K, D, D)."""
    entries = []

    def conditional(mixture, y, missing, **options):
        entries.append(len(mixture.weights) * y.shape[2] ** 2 * len(y))
        return Conditional(mixture, y, missing, **options)

    monkeypatch.setattr(target, "Conditional", conditional)
    monkeypatch.setattr(target, "VALUES", 1 << 12)
    x = gaussian()[0].sample(40, generator=generator(1))
    x[:, 1] = NAN
    getattr(gaussian()[0], method)(x)
    assert 0 < max(entries) <= 1 << 12
