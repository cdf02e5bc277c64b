"""What a reader of the table is warned of."""

from types import SimpleNamespace

from pipelines.results import _doubts

GOOD = {"train/best_step": 100, "test/gain": 5.0, "test/gain_se": 0.1, "test/bpd": 2.0}
IMAGES, COLUMNS = SimpleNamespace(levels=17), SimpleNamespace(levels=None)


def doubts(manifest=IMAGES, **numbers):
    return list(_doubts({**GOOD, **numbers}, manifest))


def test_a_good_run_has_none():
    assert not doubts()


def test_an_untrained_checkpoint_is_told():
    assert "the checkpoint is the untrained flow" in doubts(**{"train/best_step": 0})[0]


def test_worse_than_a_gaussian_is_told():
    assert doubts(**{"test/gain": -6.03}) == [
        "the flow is worse than a Gaussian, by 6.03 ± 0.10 nats"
    ]


def test_worse_than_uniform_is_told():
    assert "worse than a uniform one over 17 levels" in doubts(**{"test/bpd": 4.2})[0]
    assert not doubts(COLUMNS, **{"test/bpd": 99.0})
