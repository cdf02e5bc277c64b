"""One trial, in the process that Ray Tune runs it in."""

from pathlib import Path
from typing import Any

from ray import tune

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.errors import failure
from tuning import records
from tuning.callback import FAILURE, KILLED
from tuning.problem import Killed
from tuning.problems import PROBLEMS


def trial(job: dict[str, Any]) -> None:
    """Trains, in a process that the next trial uses again.

    A trial that Tune stops early ends in a report. One that a rule ends, or that diverges, counts
    as the worst in every goal, so that no more like it are proposed; its record keeps what it had
    reached. What else goes wrong is raised, and Tune tries the trial again from its checkpoint.

    Arguments:
        job: ``number`` and ``config`` of the trial; ``problem``, ``search`` (the fields of its
            configuration), ``inputs`` and ``folder`` (of all trials), which all have in common.
    """
    kind, root = PROBLEMS[job["problem"]], Path(job["folder"])
    found = kind(kind.searches.model_validate(job["search"]))
    config = found.trains.model_validate(job["config"])
    folder = records.folder(root, job["number"])
    folder.mkdir(parents=True, exist_ok=True)
    worst = {goal.name: goal.worst for goal in found.goals(config)}
    try:
        inputs = [store.present(Path(path)) for path in job["inputs"]]
        found.train(config, inputs, folder)
    except Killed as rule:
        tune.report(worst | {KILLED: str(rule)})
    except (BadInput, NonFinite) as error:
        tune.report(worst | {FAILURE: str(failure(error))})
    except Exception as error:  # noqa: BLE001  (told, and raised again)
        records.tell_reason(root, job["number"], str(failure(error)))
        raise
