"""A batch in parts, one after another, gives the step of the whole batch."""

import pytest
import torch

from ebflow.objectives import OBJECTIVES
from pipelines.augment import FlipAndShift

from .training import trainer

TRAININGS = {
    **{name: dict(objective=name) for name in OBJECTIVES},
    "anchored": dict(objective="ssm", loss=dict(anchor=dict(interval=4, tolerance=1e-3))),
    "augmented": dict(objective="dsm", augment=FlipAndShift((8, 8), reach=1.0)),
    "clipped": dict(objective="dsm", clip=0.1),
    "coupling": dict(objective="dsm", net=dict(architecture="coupling", depth=1, hidden=4)),
}


def finished(dataset, parts, options):
    training = trainer(dataset, **options, accumulate=parts, log_every=1)
    events = list(training.run())
    return training, [e.metrics["train/loss"] for e in events if e.kind == "log"]


@pytest.mark.parametrize("options", TRAININGS.values(), ids=TRAININGS)
def test_parts_train_as_the_whole(digits, options):
    (one, losses), (two, told) = (finished(digits, parts, options) for parts in (1, 4))
    assert told == pytest.approx(losses, rel=1e-9)
    for a, b in zip(one.parameters, two.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_fewer_rows_are_seen_at_a_time(digits):
    training, rows = trainer(digits, accumulate=4), []
    training.loss.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    training.train_step(next(digits.split("train").shuffled(64, seed=0)).x)
    assert rows == [16] * 4


def test_a_mean_over_the_batch_is_not_of_parts(digits):
    with pytest.raises(ValueError, match="accumulate: found 2 with latent_mean"):
        trainer(digits, accumulate=2, loss=dict(latent_mean=1.0))
