"""The search itself: Optuna proposes, ASHA stops what falls behind, Ray Tune runs the trials.

Sources: Optuna: A Next-generation Hyperparameter Optimization Framework (Akiba, Sano, Yanase,
Ohta, Koyama, 2019), arXiv:1907.10902; A System for Massively Parallel Hyperparameter Tuning (Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, 2018), arXiv:1810.05934.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from ebflow.files import drafted
from ebflow.randomness import generator
from pipelines.cluster.waiting import waiting
from pipelines.config import Section
from pipelines.config.changes import changes
from pipelines.errors import StageFailed
from pipelines.training import metrics_log
from tuning import records
from tuning.callback import TrialRecorder
from tuning.config import SearchConfig
from tuning.goals import Goal
from tuning.problems import problem
from tuning.records import Record
from tuning.resources import concurrency, this_machine
from tuning.suggest import Suggest
from tuning.trial import trial

TUNE, TRIALS, SCHEDULER = "tune", "trials", "scheduler"
SEEDS = 2**31
FAILURES = 2
"""How often a trial whose process or node is lost goes on from its checkpoint."""


def search(
    config: SearchConfig, base: Section, inputs: Sequence[Path], work: Path
) -> list[Record]:
    """Runs the trials that have not ended, and returns the records of all.

    What goes on after a kill: Tune's experiment and Optuna's history from Ray's own state in
    ``work`` (pickles that Ray wrote there and reads), trials from their checkpoints. Proposals
    are a function of the seed and of what earlier trials gave; the random ones of the seed alone.

    Arguments:
        config: The search.
        base: What all trials have in common.
        inputs: The folders that trials read, prepared data first.
        work: Where the state of the search and the trials' folders are.

    Raises:
        BadInput: If no trial ever fits on this machine.
        StageFailed: If every trial failed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    goals, needs = problem(config).goals(base), problem(config).needs(base)
    scheduler = Halving(config, goals[0], work / SCHEDULER)
    callback = TrialRecorder(
        work / TRIALS, work / metrics_log.FILE, config.trials, goals, scheduler.keep
    )
    if note := waiting("a trial", base.needs):
        callback.tell(note)
    tune.run(
        trial,
        name=TUNE,
        storage_path=str(work),
        config=_given(config, inputs, work),
        num_samples=config.trials,
        search_alg=_searcher(config, base),
        scheduler=scheduler if len(goals) == 1 else None,
        resources_per_trial={kind.lower(): need for kind, need in needs.items()},
        max_concurrent_trials=concurrency(base, config, this_machine()),
        time_budget_s=config.time_budget,
        max_failures=FAILURES,
        reuse_actors=True,
        raise_on_failed_trial=False,
        resume=any((work / TUNE).glob("experiment_state-*.json")),
        callbacks=[callback],
        verbose=0,
    )
    return _checked(records.read(work / TRIALS))


def _given(config: SearchConfig, inputs: Sequence[Path], work: Path) -> dict[str, Any]:
    return {
        "problem": problem(config).pipeline,
        "search": config.model_dump(mode="json"),
        "inputs": [str(path) for path in inputs],
        "folder": str(work / TRIALS),
    }


class Halving(ASHAScheduler):
    """ASHA over the share of the training, whose state Tune itself does not keep.

    Arguments:
        config: The search; its grace and reduction are used.
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
            reduction_factor=config.reduction,
        )
        self.file = file
        if file.exists():
            self.restore(str(file))

    def keep(self) -> None:
        """Writes the state to the file, whole or not at all."""
        with drafted(self.file) as draft:
            self.save(str(draft))


def _searcher(config: SearchConfig, base: Section) -> OptunaSearch:
    """Returns Optuna's tree-structured Parzen estimator, and what it starts with."""
    seed = generator(base.seed, "search").initial_seed() % SEEDS
    goals = problem(config).goals(base)
    names, modes = [goal.name for goal in goals], [goal.mode for goal in goals]
    several = len(goals) > 1
    return OptunaSearch(
        partial(_proposal, config, base),
        metric=names if several else names[0],
        mode=modes if several else modes[0],
        points_to_evaluate=_first(config, base),
        sampler=TPESampler(
            seed=seed,
            n_startup_trials=config.random,
            multivariate=True,
            group=True,
            constant_liar=True,
        ),
    )


def _first(config: SearchConfig, base: Section) -> list[dict[str, Any]]:
    """Returns the parameters of the first trials, less those that are drawn at random.

    The base is the first. Each of the others leaves one subject open: few draws of everything at
    once are better than a base that somebody has chosen.
    """
    start = Suggest()
    problem(config).propose(start, base)
    turns = itertools.islice(itertools.cycle(start.names.values()), config.random - 1)
    left = [{k: v for k, v in start.params.items() if k not in open_ones} for open_ones in turns]
    return [start.params, *left]


def _proposal(config: SearchConfig, base: Section, trial: optuna.Trial) -> dict[str, Any]:
    """Returns what a trial is told, besides what all are."""
    ask = Suggest(trial)
    found = problem(config).propose(ask, base)
    return {
        "number": trial.number,
        "config": found.model_dump(mode="json"),
        "changes": changes(base, found),
        "params": ask.params,
    }


def _checked(found: list[Record]) -> list[Record]:
    failed = [record for record in found if record.state == records.FAILED]
    if len(failed) == len(found):
        raise StageFailed(f"every trial failed, the first: {failed[0].reason}")
    return found
