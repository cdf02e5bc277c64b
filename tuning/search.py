"""The search itself: Optuna proposes, ASHA stops what falls behind, Ray Tune runs the trials.

Sources: Optuna: A Next-generation Hyperparameter Optimization Framework (Akiba, Sano, Yanase,
Ohta, Koyama, 2019), arXiv:1907.10902; A System for Massively Parallel Hyperparameter Tuning (Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, 2018), arXiv:1810.05934.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from ebflow.errors import BadInput, NonFinite
from ebflow.randomness import generator
from pipelines import store
from pipelines.cluster import environment
from pipelines.config.changes import changes
from pipelines.engine.demand import own
from pipelines.errors import StageFailed, failure
from pipelines.store.files import drafted
from pipelines.tracking.reporter import Reporter
from tuning import records
from tuning.callback import FAILURE, KILLED, TrialRecorder
from tuning.config import SearchConfig
from tuning.problem import Goal, Killed, Problem
from tuning.records import Record
from tuning.suggest import Suggest

TUNE, SCHEDULER = "tune", "scheduler"
SEEDS = 2**31
REDUCTION = 3
"""One in so many trials goes on beyond the grace, and again later."""

FAILURES = 2
"""How often a trial whose process or node is lost goes on from its checkpoint."""


def search(
    problem: Problem, inputs: Sequence[Path], work: Path, reporter: Reporter
) -> list[Record]:
    """Runs the trials that have not ended, and returns the records of all.

    What goes on after a kill: Tune's experiment and Optuna's history from Ray's own state in
    ``work`` (pickles that Ray wrote there and reads), trials from their checkpoints. Proposals
    are a function of the seed and of what earlier trials gave; the random ones of the seed alone.

    Arguments:
        problem: What is searched.
        inputs: The folders that trials read, prepared data first.
        work: Where the state of the search and the trials' folders are.
        reporter: Shows how far the search is.

    Raises:
        BadInput: If no trial ever fits on this machine.
        StageFailed: If every trial failed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config, goals, root = problem.search, problem.goals, work / records.TRIALS
    scheduler = Halving(config, goals[0], work / SCHEDULER)
    recorder = TrialRecorder(work, reporter, config.trials, goals, scheduler.keep)
    tune.run(
        partial(trial, problem=problem, inputs=inputs, root=root),
        name=TUNE,
        storage_path=str(work),
        num_samples=config.trials,
        search_alg=searcher(problem),
        scheduler=scheduler if len(goals) == 1 else None,
        resources_per_trial={kind.lower(): need for kind, need in problem.needs.items()},
        max_concurrent_trials=concurrency(problem, this_machine()),
        time_budget_s=config.time_budget,
        max_failures=FAILURES,
        reuse_actors=True,
        raise_on_failed_trial=False,
        resume=any((work / TUNE).glob("experiment_state-*.json")),
        callbacks=[recorder],
        verbose=0,
    )
    return _read(root)


def _read(root: Path) -> list[Record]:
    """Returns the records of all trials; raises StageFailed if every one failed."""
    found = records.read(root)
    failed = [record for record in found if record.state == records.FAILED]
    if len(failed) == len(found):
        raise StageFailed(f"every trial failed, the first: {failed[0].reason}")
    return found


def trial(job: dict[str, Any], problem: Problem, inputs: Sequence[Path], root: Path) -> None:
    """Trains, in a process that the next trial uses again.

    A trial that Tune stops early ends in a report. One that a rule ends, or that diverges, counts
    as the worst in every goal, so that no more like it are proposed; its record keeps what it had
    reached. What else goes wrong is raised, and Tune tries the trial again from its checkpoint.

    Arguments:
        job: ``number`` and ``config`` of the trial.
        problem: What it is a trial of.
        inputs: The folders that trials read, prepared data first.
        root: The folder of all trials.
    """
    folder = records.folder(root, job["number"])
    folder.mkdir(parents=True, exist_ok=True)
    worst = {goal.name: goal.worst for goal in problem.goals}
    try:
        config = type(problem.base).model_validate(job["config"])
        problem.train(config, [store.present(path) for path in inputs], folder)
    except Killed as rule:
        tune.report(worst | {KILLED: str(rule)})
    except (BadInput, NonFinite) as error:
        tune.report(worst | {FAILURE: str(failure(error))})
    except Exception as error:  # noqa: BLE001  (told, and raised again)
        records.tell_reason(root, job["number"], str(failure(error)))
        raise


class Halving(ASHAScheduler):
    """ASHA over the share of the training, whose state Tune itself does not keep.

    Arguments:
        config: The search; its grace is used.
        goal: By what trials are compared.
        file: Where the state is kept.
    """

    def __init__(self, config: SearchConfig, goal: Goal, file: Path) -> None:
        super().__init__(
            time_attr="share",
            metric=goal.name,
            mode=goal.mode,
            max_t=1,
            grace_period=config.grace,
            reduction_factor=REDUCTION,
        )
        self.file = file
        if file.exists():
            self.restore(str(file))

    def keep(self) -> None:
        """Writes the state to the file, whole or not at all."""
        with drafted(self.file) as draft:
            self.save(str(draft))


Machine = Mapping[str, float]
"""CPUs and GPUs of a machine, by kind."""


def this_machine() -> Machine | None:
    """Returns what an embedded Ray has; None where there is a cluster, which may grow."""
    if not environment.embedded():
        return None
    import torch

    return {"CPU": environment.cpus(), "GPU": torch.cuda.device_count()}


def concurrency(problem: Problem, machine: Machine | None) -> int:
    """Returns how many trials are to be in Ray's queue at a time.

    A cluster may grow, so that all trials that need no result of others are there at once.

    Arguments:
        problem: Its ``max_concurrent`` is a bound, ``random`` the number of those trials.
        machine: What this machine has, where it is all that there is; None: a cluster.

    Raises:
        BadInput: If not a single trial fits on this machine, as it would wait for ever.
    """
    search, needs = problem.search, own(problem.base)
    if machine is None:
        return search.max_concurrent or search.random
    for kind, need in needs.items():
        if need > machine.get(kind, 0):
            raise BadInput(
                f"found a trial that needs {need:g} {kind}s, expected at most the "
                f"{machine.get(kind, 0):g} that there are, as it would wait for ever: "
                f"{problem.smaller}"
            )
    room = min(machine[kind] // need for kind, need in needs.items())
    return int(min(room, search.max_concurrent or room))


def searcher(problem: Problem) -> OptunaSearch:
    """Returns Optuna's tree-structured Parzen estimator, and what it starts with."""
    seed = generator(problem.base.seed, "search").initial_seed() % SEEDS
    names, modes = zip(*((goal.name, goal.mode) for goal in problem.goals), strict=True)
    several = len(names) > 1
    return OptunaSearch(
        partial(_proposal, problem),
        metric=list(names) if several else names[0],
        mode=list(modes) if several else modes[0],
        points_to_evaluate=_first(problem),
        sampler=TPESampler(
            seed=seed,
            n_startup_trials=problem.search.random,
            multivariate=True,
            group=True,
            constant_liar=True,
        ),
    )


def _first(problem: Problem) -> list[dict[str, Any]]:
    """Returns the parameters of the first trials, less those that are drawn at random.

    The base is the first. Each of the others leaves one subject open: few draws of everything at
    once are better than a base that somebody has chosen.
    """
    start = Suggest()
    problem.propose(start)
    turns = itertools.islice(itertools.cycle(start.names.values()), problem.search.random - 1)
    left = [{k: v for k, v in start.params.items() if k not in open_ones} for open_ones in turns]
    return [start.params, *left]


def _proposal(problem: Problem, trial: optuna.Trial) -> dict[str, Any]:
    """Returns what a trial is told, besides what all are."""
    ask = Suggest(trial)
    found = problem.propose(ask)
    return {
        "number": trial.number,
        "config": found.model_dump(mode="json"),
        "changes": changes(problem.base, found),
        "params": ask.params,
    }
