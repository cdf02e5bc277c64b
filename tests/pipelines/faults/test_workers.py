"""References without faults: one worker and two, with the same numbers."""

import pytest

from .harness import curve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_two_workers_give_what_one_gives(whole, pair):
    one, two = map(curve, (whole, pair))
    assert one.keys() == two.keys() and two[0] == one[0]
    for step, nll in one.items():
        assert two[step] == pytest.approx(nll, abs=0.02), step
    a, b = (store.summary() for store in (whole, pair))
    assert b["test/nll"] == pytest.approx(a["test/nll"], abs=0.02)
    made = [store["artefacts"] for store in (a, b)]
    equal = {stage: made[0][stage].rpartition("/")[2] == made[1][stage].rpartition("/")[2]
            for stage in made[0]}  # fmt: skip
    assert equal == dict.fromkeys(equal, False) | {"prepare": True, "preprocess": True}
