"""Crossovers of the step times of two objectives."""

from pipelines.paper.runtime import crossover

SIZES = (64, 256, 784, 1536, 3072)


def times(ms, sizes=SIZES):
    return {d: ms(d) for d in sizes}


def test_the_crossover_is_the_least_size_from_which_on_a_step_is_faster():
    dsm, ml = times(lambda d: (d / 500) ** 2.0), times(lambda d: (d / 500) ** 2.8)
    assert crossover(dsm, ml) == 784
    assert crossover(ml, dsm) is None
    ratios = dict(zip(SIZES, (0.5, 2.0, 0.5, 0.25, 0.5), strict=True))
    assert crossover(ratios, times(lambda d: 1.0)) == 784, "the last crossing counts"


def test_only_sizes_of_both_are_compared():
    dsm = times(lambda d: (d / 500) ** 2.0)
    assert crossover(dsm, times(lambda d: 9.0, sizes=(64,))) == 64
