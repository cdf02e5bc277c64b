"""Fits of many columns: a mixture of Gaussians competes with the autoregressive flow."""

import math
from unittest.mock import Mock

import pytest
import torch

import ebflow
from ebflow import fitting, recipes, train
from ebflow.history import expected_nll

pytestmark = pytest.mark.usefixtures("single_precision")


def test_a_training_that_will_end_behind_a_mixture_leaves_it_the_time():
    generator = torch.Generator().manual_seed(0)
    centres = 8 * torch.randn(12, 24, generator=generator)
    x = centres[torch.randint(12, (900,), generator=generator)]
    x = x + torch.randn(x.shape, generator=generator)
    flow = ebflow.fit(x, steps=160, validate_every=40, lr=5e-4, progress=False)
    steps = {row["architecture"]: row["step"] for row in flow.history}
    assert flow.report.replaced and steps["autoregressive"] < 160
    assert steps["dense"] > 0


@pytest.mark.parametrize(
    ("points", "share", "expected"),
    [({0: 9.0, 64: 5.0, 128: 4.0}, 0.5, 3.0), ({0: 9.0, 64: 5.0}, 0.5, -math.inf),
     ({32: 6.0, 64: 5.0, 128: 5.5}, 0.25, 6.5)],
)  # fmt: skip
def test_a_doubling_of_the_steps_is_expected_to_gain_as_much_as_the_last(points, share, expected):
    history = [{"step": step, "val/nll": nll} for step, nll in points.items()]
    assert expected_nll(history, share) == pytest.approx(expected)


def test_a_mixture_that_is_ahead_at_the_end_is_returned(monkeypatch):
    monkeypatch.setattr(fitting, "HALFWAY", 2.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 24, generator=generator)
    flow = ebflow.fit(x, steps=4, progress=False)
    assert flow.report.replaced and flow.report.architecture == "dense"


def test_the_same_rows_judge_both_trainings(monkeypatch):
    monkeypatch.setattr(train, "FEW", 3)
    monkeypatch.setattr(train, "BATCHES", 1)
    monkeypatch.setitem(recipes.RECIPES["wide"], "batch_size", 16)
    monkeypatch.setattr(fitting, "HALFWAY", 2.0)
    judged = []

    def record(run, best, replaced):
        judged.extend(len(trainer.held_out) for trainer, *_ in run.trainings)
        return best.flow

    monkeypatch.setattr(fitting._Run, "finished", record)
    x = torch.randn(900, 24, generator=torch.Generator().manual_seed(0))
    ebflow.fit(x, steps=4, validation=400, progress=False)
    assert judged == [64, 64]


def test_an_architecture_of_the_user_has_no_rival():
    made = []

    def mine(shape, **options):
        made.append(options)
        return ebflow.architectures.autoregressive(shape, bins=4, context=0)

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 24, generator=generator)
    flow = ebflow.fit(x, architecture=mine, steps=4, progress=False)
    assert len(made) == 1 and not flow.report.replaced


def test_an_interruption_of_the_second_training_is_told(monkeypatch):
    monkeypatch.setattr(fitting, "HALFWAY", 2.0)
    seen = []

    def stop(event):
        seen.append((event.kind, event.step))
        if event.kind == "validate" and seen.count(("validate", 0)) == 2:
            raise KeyboardInterrupt

    x = torch.randn(900, 24, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="interrupted"):
        flow = ebflow.fit(x, steps=4, callback=stop, progress=False)
    assert flow.report.replaced


def test_an_interruption_before_the_second_training_loses_nothing(monkeypatch):
    monkeypatch.setattr(fitting.mixtures, "fit_mixture", Mock(side_effect=KeyboardInterrupt))
    x = torch.randn(900, 5, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="interrupted"):
        flow = ebflow.fit(x, steps=100, patience=1, lr=0.1, progress=False)
    assert flow.report.ended == "interrupted" and flow.spec["architecture"] == "autoregressive"


def test_an_interrupted_fit_starts_no_other_training():
    def stop(event):
        if event.kind == "validate":
            raise KeyboardInterrupt

    generator = torch.Generator().manual_seed(0)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        flow = ebflow.fit(torch.randn(900, 24, generator=generator), steps=40, callback=stop)
    assert {row["architecture"] for row in flow.history} == {"autoregressive"}
