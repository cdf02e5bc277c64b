"""Classifiers by Bayes' rule, against exact posteriors and scikit-learn's measures."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch.distributions import MultivariateNormal

import ebflow
from ebflow.bijections import ConditionalAffine
from ebflow.tables.rows import Rows
from pipelines.density.evaluate import log_posteriors, measures
from tests.library.bijections.cases import seeded
from tests.library.conftest import double_precision  # noqa: F401

MEANS = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 2.0]]).double()
SHARES = torch.tensor([0.6, 0.3, 0.1]).double()


@pytest.fixture(scope="module")
def flow():
    """N(m_k, I) given class k."""
    layer = ConditionalAffine((2,), 3)
    layer.line.weight.data[2:] = -MEANS.mT.float()
    return ebflow.Flow((2,), [layer], context=3).double()


def drawn(count):
    labels = torch.multinomial(SHARES, count, replacement=True, generator=seeded(1))
    return MEANS[labels] + torch.randn(count, 2, generator=seeded(2)).double(), labels


def test_posteriors_are_those_of_bayes(flow):
    x, _ = drawn(40)
    joint = torch.stack(
        [MultivariateNormal(m, torch.eye(2).double()).log_prob(x) for m in MEANS], 1
    )
    expected = (joint + SHARES.log()).log_softmax(1)
    torch.testing.assert_close(log_posteriors(flow, Rows(x), SHARES, batch_size=7), expected)


def test_measures_are_scikit_learns(flow):
    x, labels = drawn(500)
    found = log_posteriors(flow, Rows(x), SHARES)
    measured = measures(found, labels)
    assert measured["accuracy"] == pytest.approx(accuracy_score(labels, found.argmax(1)))
    assert measured["log_loss"] == pytest.approx(log_loss(labels, found.exp()))


def test_the_truth_is_calibrated_and_what_is_too_sure_is_not(flow):
    """The error of the truth is that of shares of 20,000 rows: below 0.02 in all bins."""
    x, labels = drawn(20_000)
    found = log_posteriors(flow, Rows(x), SHARES)
    assert measures(found, labels)["calibration_error"] < 0.02
    sure = (4 * found).log_softmax(1)
    assert measures(sure, labels)["calibration_error"] > 0.1
