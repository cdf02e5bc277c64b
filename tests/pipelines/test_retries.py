"""Which failures of a stage pass, so that it is tried again."""

import pytest
from mlflow.exceptions import MlflowException
from ray.exceptions import ActorDiedError, TaskCancelledError

from ebflow.errors import BadInput, NonFinite
from pipelines.engine.calls import is_transient
from pipelines.engine.pipeline import Retries
from pipelines.errors import Diverged, StageFailed


class Wrapped(Exception):
    """What Ray raises of a task, or of a training's workers: around the error itself."""

    def __init__(self, cause):
        super().__init__("several\nlines")
        self.cause = cause


PASSING = [OSError(28, "full"), ConnectionResetError(), MlflowException("away"), TimeoutError()]
LASTING = [BadInput("x"), NonFinite("x"), Diverged("x"), StageFailed("x"), ZeroDivisionError(),
           TaskCancelledError(), MemoryError(),
           MlflowException.invalid_parameter_value("x")]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_disks_and_networks_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_bad_input_and_divergence_do_not(error):
    assert not is_transient(error) and not is_transient(Wrapped(error))


def test_what_is_wrapped_counts():
    assert is_transient(Wrapped(Wrapped(OSError())))


def test_a_training_whose_workers_were_restarted_in_vain_does_not_pass():
    assert not is_transient(Wrapped(ActorDiedError()))


def test_pauses_double():
    assert [*Retries(3, 5.0).pauses] == [5.0, 10.0, 20.0]


@pytest.mark.parametrize("word", ["--retries=-1", "--retry-pause=-0.5", "--retry-pause=inf"])
def test_less_than_none_is_bad_input(ebflow, home, word):
    result = ebflow("run", "density", word)
    option, _, value = word.partition("=")
    assert (result.code, result.out) == (2, [])
    assert result.err == [f"ebflow: {option}: found {value}, expected a number of at least 0"]
    assert not home.exists()
