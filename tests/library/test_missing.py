"""Missing values during training: the first copula, and samples of the flow."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import ebflow
from ebflow.conditioning import Conditional
from ebflow.errors import BadInput
from ebflow.imputation import TrainingImputer
from ebflow.randomness import generator
from ebflow.sklearn import FlowDensity
from ebflow.tables import completion
from ebflow.tables.completion import Completed, RankCopula, fit_gaussian
from ebflow.tables.rows import Arrays, Rows
from tests.pipelines.training.cases import same_when_resumed, trainer

BOUND = 4.5  # Standard errors that one number in 150,000 is away from its truth

CORRELATION = 0.8


def pairs(count, seed=0):
    """Rows of a Gaussian with one correlation, its second column an integer."""
    z = torch.randn(count, 2, generator=generator(seed, "pairs"))
    x = torch.stack([z[:, 0], CORRELATION * z[:, 0] + math.sqrt(1 - CORRELATION**2) * z[:, 1]], 1)
    return torch.stack([x[:, 0], (4 * x[:, 1]).round()], 1)


def holes(x, share=0.3, seed=1):
    """The same rows with entries missing at random."""
    gone = torch.rand(x.shape, generator=generator(seed, "holes")) < share
    return x.masked_fill(gone, math.nan)


def test_the_first_law_has_the_correlation_of_the_complete_rows():
    """The error of a correlation from 3,000 rows of which half are whole is below 0.01."""
    copula = RankCopula.fit(holes(pairs(3_000)))
    (covariance,) = copula.scores.covariances
    found = covariance[0, 1] / covariance.diagonal().prod().sqrt()
    assert float(found) == pytest.approx(CORRELATION, abs=BOUND * 0.01)


def test_the_first_law_draws_what_the_column_has_given_the_others():
    truth = pairs(4_000)
    copula, gone = RankCopula.fit(holes(truth)), truth.clone()
    gone[:, 1] = math.nan
    drawn = copula.complete(gone, 0, "test")
    assert torch.equal(drawn[:, 0], truth[:, 0])
    assert set(drawn[:, 1].tolist()) <= set(truth[:, 1].tolist())
    assert float(drawn.T.corrcoef()[0, 1]) == pytest.approx(CORRELATION, abs=0.03)
    spread = float(drawn[:, 1].std() / truth[:, 1].std())
    assert spread == pytest.approx(1, abs=0.06)


def test_a_gaussians_expected_entries_are_its_conditional_means():
    z = holes(torch.randn(500, 3, generator=generator(0, "z")).cumsum(1))
    gaussian = fit_gaussian(z)
    given = Conditional(gaussian, z.nan_to_num()[:, None], z.isnan())
    found = given.means[:, 0, 0]
    mean, covariance = gaussian.means[0], gaussian.covariances[0]
    for row, whole in zip(z[:20], found, strict=False):
        m, o = row.isnan(), ~row.isnan()
        gain = covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o])
        torch.testing.assert_close(whole[m], mean[m] + gain @ (row[o] - mean[o]))
    errors = (given.sample(1, generator(1, "draw"))[:, 0] - found)[z.isnan()]
    assert abs(float(errors.mean())) < BOUND * float(errors.std()) / len(errors) ** 0.5


def test_noise_is_the_rows_own(monkeypatch):
    x = holes(pairs(300))
    copula = RankCopula.fit(x)
    whole = copula.complete(x, 0, "test")
    monkeypatch.setattr("ebflow.tables.completion.CHUNK", 64)
    assert torch.equal(copula.complete(x, 0, "test"), whole)
    assert not torch.equal(copula.complete(x, 1, "test"), whole)


def test_a_column_without_a_value_is_one_line():
    with pytest.raises(BadInput, match="x, feature 1: found no value in 9 rows"):
        RankCopula.fit(torch.stack([torch.arange(9.0), torch.full((9,), math.nan)], 1))


def incomplete(count=400):
    """A data set of which a third of the entries is missing."""
    train, held = holes(pairs(count)), holes(pairs(100, seed=5))
    copula = RankCopula.fit(train)
    data = Arrays(
        *(
            Completed(Rows(x, name=name, missing=True), copula, 0)
            for name, x in (("train", train), ("validation", held))
        )
    )
    data.digest = "rows"
    return data


SHORT = dict(steps=9, batch_size=64, validate_every=3, log_every=3, objective="ml")


@pytest.fixture
def often(monkeypatch):
    """Redraws in every second step."""
    monkeypatch.setattr("ebflow.imputation.RESAMPLE_EVERY", 2)


def test_entries_are_drawn_again_and_others_stay(often):
    dataset = incomplete()
    split = dataset.split("train")
    before, seen = split.tensor().clone(), ~split.missing
    list(trainer(dataset, **SHORT).run())
    after = split.tensor()
    assert torch.equal(after[seen], before[seen]) and after.isfinite().all()
    assert float((after != before)[split.missing].double().mean()) > 0.5


def test_an_interrupted_training_equals_an_uninterrupted_one(often, tmp_path):
    trainings = (trainer(incomplete(), **SHORT) for _ in range(3))
    same_when_resumed(*trainings, 6, tmp_path / "at6")


def test_resampling_changes_a_bounded_number_of_rows():
    """Two batches of 64 rows."""
    split = incomplete().split("train")
    imputer = TrainingImputer(split, batch_size=64, seed=0, device=torch.device("cpu"))
    before = imputer.x.clone()
    imputer.resample(trainer(incomplete(), **SHORT).averaged, 100)
    changed = (imputer.x != before).any(1).sum()
    assert 64 < changed <= 128


def test_values_that_move_on_reach_the_flows_own_distribution():
    """Of a flow that is a Gaussian of another mean: resampling forgets a start from far away."""
    flow = ebflow.Flow(
        (2,), [ebflow.bijections.Dense(torch.eye(2), torch.tensor([0.0, -3.0]))]
    ).double()
    rows = Rows(torch.tensor([[1.0, 0.0], [0.5, math.nan]] * 1_000), missing=True)
    split = Completed(
        rows, RankCopula.fit(torch.randn(50, 2, generator=generator(0, "copula"))), 0
    )
    imputer = TrainingImputer(split, batch_size=1_000, seed=0, device=torch.device("cpu"))
    for step in range(1, 13):
        imputer.resample(flow, step)
    drawn = imputer.state()["entries"]
    assert abs(float(drawn.mean()) - 3) < BOUND / math.sqrt(1_000)
    assert float(drawn.std()) == pytest.approx(1, abs=BOUND / math.sqrt(2_000))


QUICK = dict(steps=30, architecture="dense", marginals=False, progress=False)


def test_rows_are_refused_dropped_or_kept():
    x = holes(pairs(200), 0.1).numpy()
    row, column = np.argwhere(np.isnan(x))[0]
    with pytest.raises(ValueError, match=f"x, column '{column}', row {row}: found nan") as caught:
        ebflow.fit(x, missing=None)
    assert "missing='drop'" in str(caught.value) and "missing='impute'" in str(caught.value)
    lacking = int(np.isnan(x).any(1).sum())
    with pytest.warns(
        RuntimeWarning, match=f"{lacking} of 200 rows have missing values and were drop"
    ):
        dropped = ebflow.fit(x, missing="drop", **QUICK)
    with pytest.warns(RuntimeWarning, match=f"{lacking} of 200 rows .* are imputed"):
        kept = ebflow.fit(x, **QUICK)
    whole = torch.from_numpy(x[~np.isnan(x).any(1)])
    for flow in (dropped, kept):
        assert flow.log_prob(whole).isfinite().all()
    assert not torch.equal(dropped.log_prob(whole), kept.log_prob(whole))


def test_the_first_imputation_has_a_share_of_a_time_limit(monkeypatch):
    counts = []
    monkeypatch.setattr(
        completion, "fit_gaussian", lambda z: (counts.append(len(z)), fit_gaussian(z))[1]
    )
    for limit in (None, 8.0):
        ebflow.fit(holes(pairs(1000)), max_seconds=limit, **QUICK)
    assert counts[0] == 900 and 100 < counts[1] <= 500


def test_a_bad_policy_is_one_line():
    with pytest.raises(ValueError, match="missing: found 'mean', expected one of drop, impute"):
        ebflow.fit(holes(pairs(200)), missing="mean", **QUICK)


@pytest.mark.system
def test_entries_are_drawn_given_the_context():
    """x = 3 c + n/4: an entry that is drawn without c would have seven times that deviation."""
    draws = generator(5)
    c = torch.randn(600, 1, generator=draws)
    x = 3 * c + 0.25 * torch.randn(600, 2, generator=draws)
    x[torch.rand(600, 2, generator=draws) < 0.3] = torch.nan
    fast = partial(torch.optim.Adam, lr=1e-2)
    flow = ebflow.fit(x, c, missing="impute", optimizer=fast, **{**QUICK, "steps": 150})
    away = flow.sample((20,), context=c, generator=generator(6)) - 3 * c
    assert float(away.std()) < 0.6


def test_a_policy_changes_nothing_where_nothing_is_missing():
    one, two = (ebflow.fit(pairs(200), missing=policy, **QUICK) for policy in (None, "impute"))
    x = pairs(20, seed=9)
    assert torch.equal(one.log_prob(x), two.log_prob(x))


@pytest.mark.parametrize(
    "fit", [partial(ebflow.fit, progress=False), lambda x, **few: FlowDensity(**few).fit(x)]
)
def test_a_warning_points_at_the_call_of_the_library(fit):
    x = holes(pairs(200), 0.1).numpy()
    with pytest.warns(RuntimeWarning, match="have missing values") as caught:
        fit(x, steps=30, architecture="dense")
    assert {Path(one.filename).name for one in caught} == {"test_missing.py"}
