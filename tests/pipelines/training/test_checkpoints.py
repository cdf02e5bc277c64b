"""The checkpoints of a training: which are kept, and which is gone on from."""

import pytest

from pipelines.training.checkpoints import Checkpoints

from .cases import trainer


@pytest.fixture(scope="module")
def training(digits):
    return trainer(digits)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def save(checkpoints, training, *steps):
    """Saves at some steps, each told with the best so far."""
    for step, best in steps:
        training.state.step, training.state.best_step = step, best
        checkpoints.save(training)


def kept(checkpoints):
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.folder.iterdir())


def damage(checkpoints, step, name="ema.safetensors"):
    path = checkpoints.path(step) / name
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def test_the_last_two_and_their_best_are_kept(checkpoints, training):
    save(checkpoints, training, (0, 0), (2, 2))
    assert kept(checkpoints) == [0, 2]
    save(checkpoints, training, (4, 2), (6, 2))
    assert kept(checkpoints) == [2, 4, 6]
    save(checkpoints, training, (8, 8))
    assert kept(checkpoints) == [2, 6, 8]
    save(checkpoints, training, (10, 8))
    assert kept(checkpoints) == [8, 10]


def test_the_newest_is_gone_on_from(checkpoints, training):
    assert checkpoints.newest() == (None, "")
    save(checkpoints, training, (0, 0), (2, 2), (10, 2))
    assert checkpoints.newest() == (10, "")


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_from_a_damaged_one_the_one_before_is_taken_and_told(checkpoints, training, name):
    save(checkpoints, training, (0, 0), (2, 2), (4, 4))
    damage(checkpoints, 4, name)
    step, message = checkpoints.newest()
    assert step == 2 and "\n" not in message
    assert f"step-4/{name}: corrupt" in message
    assert message.endswith("training resumes from step 2")


def test_one_whose_best_is_damaged_or_gone_is_not_gone_on_from(checkpoints, training):
    save(checkpoints, training, (0, 0), (2, 2), (4, 2))
    damage(checkpoints, 2)
    step, message = checkpoints.newest()
    assert step is None and message.endswith("training starts again")
    assert kept(checkpoints) == [4]  # a sound one is left to whoever can repair the best
    save(checkpoints, training, (4, 4), (6, 6))
    assert checkpoints.newest() == (6, "")
    (checkpoints.path(6) / "state.json").unlink()
    assert checkpoints.newest()[0] == 4


def test_a_corrupt_one_does_not_push_out_a_sound_one(checkpoints, training):
    """As one that was half uploaded when its node was lost."""
    save(checkpoints, training, (2, 2), (4, 4))
    damage(checkpoints, 4)
    assert checkpoints.newest()[0] == 2
    save(checkpoints, training, (5, 5))
    damage(checkpoints, 5)
    assert checkpoints.newest()[0] == 2


def test_what_is_beyond_the_present_step_goes(checkpoints, training):
    save(checkpoints, training, (2, 2), (4, 4))
    damage(checkpoints, 4)
    save(checkpoints, training, (3, 3))
    assert kept(checkpoints) == [2, 3] and checkpoints.newest() == (3, "")


def test_what_a_killed_writer_left_goes(checkpoints, training):
    save(checkpoints, training, (2, 2))
    (checkpoints.folder / ".step-4.77").mkdir()
    assert checkpoints.newest() == (2, "")
    save(checkpoints, training, (4, 4))
    assert kept(checkpoints) == [2, 4]


def test_a_damaged_state_of_the_one_before_stops_no_training(checkpoints, training):
    save(checkpoints, training, (0, 0), (2, 2))
    damage(checkpoints, 2, "state.json")
    save(checkpoints, training, (4, 4))
    assert checkpoints.newest() == (4, "")
