"""The stage that searches: Optuna proposes, ASHA stops what falls behind, Ray Tune runs trials.

Sources: Optuna: A Next-generation Hyperparameter Optimization Framework (Akiba, Sano, Yanase,
Ohta, Koyama, 2019), arXiv:1907.10902; A System for Massively Parallel Hyperparameter Tuning (Li,
Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, 2018), arXiv:1810.05934.
"""

import math
from collections import Counter
from functools import partial
from pathlib import Path

import optuna
import torch
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from ebflow.errors import BadInput
from ebflow.randomness import generator
from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.connection import DRIVER
from pipelines.config import Training
from pipelines.data.dataset import Dataset
from pipelines.engine.stages import Needs, needs_from_config
from pipelines.errors import StageFailed
from pipelines.tracking.run import StageRun
from tuning.config import TuneConfig
from tuning.space import first_points
from tuning.trials import DEFAULT, TRIALS, TrialRuns, propose, save, train

EXPERIMENT = "tune"  # The name of Ray Tune's experiment, a folder in that of the stage's work
GRACE = 0.2  # Share of its training that every trial gets
REDUCTION = 3  # Factor of ASHA: one in so many trials is trained beyond the grace, and again later
FAILURES = 2  # Times that a trial resumes from its checkpoint after its process or node was lost


def search(config: TuneConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``trials.json``, the outcomes of all trials.

    After a kill Ray Tune resumes from its own files in ``work``, and trials from their
    checkpoints. Proposals depend on the seed and on the results of earlier trials.

    Raises:
        StageFailed: If no trial has started, or every trial failed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run.open(config, Dataset(data))
    TrialRuns.search, TrialRuns.config = run, config
    _tuner(config, data, run).fit()
    trials = sorted(TrialRuns.outcomes, key=lambda trial: trial.number)
    if not trials:
        store.forget(run.work / EXPERIMENT)  # Ray Tune would not resume it
        found = f"{config.search.time_budget:g} s, in which no trial started"
        raise BadInput(option="--time-budget", found=found, expected="more")
    if trials[0].number != DEFAULT:
        raise StageFailed("the trial of the default, to which others are compared, never started")
    if all(trial.reason for trial in trials):
        raise StageFailed(f"every trial failed, the first: {trials[0].reason}")
    save(run.output, trials)
    states = Counter(trial.state for trial in trials)
    run.log_metrics({f"trials/{state}": count for state, count in sorted(states.items())})
    run.log_artifacts(run.output)


def _tuner(config: TuneConfig, data: Path, run: StageRun) -> tune.Tuner:
    """Returns a new experiment of Ray Tune, or the one that was interrupted."""
    needs = trial_needs(config.start)  # Tune writes CPU small, but not the name of a type of GPU
    needs = {kind if ":" in kind else kind.lower(): amount for kind, amount in needs.items()}
    bound = partial(train, data=data, work=run.work / TRIALS, search=run)
    trainable = tune.with_resources(bound, needs)
    folder = run.work / EXPERIMENT
    if any(folder.glob("experiment_state-*.json")):  # it has started
        return tune.Tuner.restore(str(folder), trainable, resume_errored=True)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=config.search.trials,
            search_alg=searcher(config),
            scheduler=ASHAScheduler(
                "share", "nll", "min", max_t=1, grace_period=GRACE, reduction_factor=REDUCTION
            ),
            max_concurrent_trials=concurrency(config),
            time_budget_s=config.search.time_budget,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(run.work),
            failure_config=tune.FailureConfig(max_failures=FAILURES),
            callbacks=[TrialRuns()],
            verbose=0,
        ),
    )


def searcher(config: TuneConfig) -> OptunaSearch:
    """Returns Optuna's tree-structured Parzen estimator, with the first trials."""
    base, options = config.start, config.search
    return OptunaSearch(
        partial(propose, base=base, search=options),
        metric="nll",
        mode="min",
        points_to_evaluate=first_points(base, options),
        sampler=TPESampler(
            seed=generator(base.seed, "search").initial_seed() % 2**31,
            n_startup_trials=options.random,
            multivariate=True,
            group=True,
            constant_liar=True,
        ),
    )


def trial_needs(training: Training) -> Needs:
    """Returns what Ray reserves for a trial: its own process, or the driver of its workers.

    This machine cannot grow: here, a trial gets no more CPUs than there are.
    """
    if training.cluster.limits[1] > 1:
        return DRIVER
    needs = needs_from_config(training)
    most = environment.cpus() if environment.embedded() else math.inf
    return {**needs, "CPU": min(needs["CPU"], most)}


def concurrency(config: TuneConfig) -> int:
    """Returns the number of trials that are in Ray's queue at a time.

    This machine gets as many as it has CPUs and GPUs for. A cluster may grow, so its queue gets
    all trials that need no results of others.
    """
    if not environment.embedded():
        return config.search.random
    machine = {"CPU": environment.cpus(), "GPU": torch.cuda.device_count()}
    needs = needs_from_config(config.start)
    return max(1, int(min(machine[kind] // need for kind, need in needs.items())))
