"""From configurations to trainers, and what a worker reports."""

import signal
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray.train.torch
import torch
from mlflow.exceptions import MlflowException

import ebflow.train
from ebflow.architectures import dense
from ebflow.checkpoint import check, load, read
from ebflow.errors import NonFinite
from ebflow.history import Event
from pipelines import metrics_log
from pipelines.cluster import environment
from pipelines.config import (
    AnchorConfig,
    ClusterConfig,
    Dense,
    Dsm,
    Objective,
    PreprocessConfig,
    ScoreMatching,
    Ssm,
    StabiliseConfig,
    TrainConfig,
    Training,
)
from pipelines.config.objective import OBJECTIVES, LearnedInverse
from pipelines.data.dataset import Dataset
from pipelines.tracking.run import Reporter
from pipelines.training import loop
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.flow_training import FlowTraining, _loss, fit
from pipelines.training.loop import TrainingLoop, WorkerContext
from pipelines.training.preprocessing import fit_preprocessing
from tests.library.training import broken
from tests.pipelines.trainers import build
from tests.pipelines.training.cases import same_when_resumed
from tests.prepared import prepare

SHORT = TrainConfig(steps=12, batch_size=32, validate_every=6, log_every=3, dtype="float64")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare("digits", folder, rows=300, validation=50, test=50)
    return Dataset(folder)


def finished(config, dataset):
    """Trains to the end; returns the trainer and its events."""
    trainer = build(config, dataset)
    return trainer, list(trainer.run())


def trained_by(name):
    """Returns the fields of a configuration that an objective needs beside its options."""
    if issubclass(OBJECTIVES[name], LearnedInverse):
        return {"objective": Objective.of(name), "model": Dense(linear="learned_inverse")}
    return {"objective": Objective.of(name)}


CONFIGS = {
    **{name: trained_by(name) for name in OBJECTIVES},
    "annealed noise": {"objective": Dsm(sigma=1.0, sigma_end=0.1)},
    "no anchor": {"anchor": AnchorConfig(weight=0)},
    "anchor by interval": {"anchor": AnchorConfig(tolerance=None, interval=2)},
    "stabilised": {"stabilise": StabiliseConfig(low_energy=0.1, latent_mean=1, finish=0.3)},
    "raw": {"preprocess": PreprocessConfig(normalize="none", logit=None)},
    "scores in raw units": {"preprocess": PreprocessConfig(match_after=False), "objective": Ssm()},
    **{
        f"{name} beyond the logit": {
            "preprocess": PreprocessConfig(match_after=False),
            "objective": Objective.of(name),
            "train": SHORT.model_copy(update={"dtype": "float32", "lr": 1e-4}),
        }
        for name in ("dsm", "fd_ssm", "taylor_sm", "sml")
    },
    "images moved": {"train": SHORT.model_copy(update={"augment": "cifar10"})},
    "noise in raw units": {"preprocess": PreprocessConfig(match_after=False, logit=None)},
    "deep and residual": {"model": Dense(depth=4, residual=True, noise=0.1)},
    "negative start": {"model": Dense(sign=-1, bias=1.0, calibrated=False)},
    **{
        kind: {"train": SHORT.model_copy(update={"optimizer": kind, "lr": 1e-4, "clip": 1.0})}
        for kind in ("adam", "adamw", "rmsprop", "sgd")
    },
    **{
        kind: {"train": SHORT.model_copy(update={"schedule": kind, "warmup": 0.2})}
        for kind in ("constant", "cosine", "multistep")
    },
}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_every_configuration_trains(fields, dataset):
    trainer, events = finished(Training(**{"train": SHORT, **fields}), dataset)
    assert trainer.step == 12 and trainer.state.verdict == "ended after 12 steps"
    assert [event.step for event in events if event.kind == "validate"] == [0, 6, 12]
    assert [event.step for event in events if event.kind == "log"] == [3, 6, 9, 12]


@pytest.fixture(scope="module")
def table(tmp_path_factory, tabular_file):
    folder = tmp_path_factory.mktemp("data") / "table"
    prepare(tabular_file, folder)
    return Dataset(folder)


def rows_seen(trainer, monkeypatch):
    """Returns the raw rows that the steps of a training preprocess, in turn."""
    seen, preprocess = [], trainer.flow.preprocess

    def kept(x, *, generator):
        seen.append(x)
        return preprocess(x, generator=generator)

    monkeypatch.setattr(trainer.flow, "preprocess", kept)
    list(trainer.run())
    return seen


def test_noise_is_added_to_training_rows_alone(table, monkeypatch):
    """Of 12 steps of 32 rows of 10: the noise's deviation to 5 standard errors."""
    plain = Training(train=SHORT, preprocess=PreprocessConfig(shrinkage=0.01))
    noised = plain.model_copy(update={"train": SHORT.model_copy(update={"noise": 0.25})})
    first, second = (build(config, table) for config in (plain, noised))
    assert first.validate().metrics["val/nll"] == second.validate().metrics["val/nll"]
    rows, others = (rows_seen(trainer, monkeypatch) for trainer in (first, second))
    noise = torch.stack(others) - torch.stack(rows)
    assert len(noise) == 12 and not torch.equal(noise[0], noise[1])
    assert noise.std() == pytest.approx(0.25, abs=5 * 0.25 / (2 * noise.numel()) ** 0.5)


def test_the_same_configuration_gives_the_same_numbers(dataset):
    runs = [finished(Training(train=SHORT, seed=3), dataset)[1] for _ in range(2)]
    nll = [[e.metrics["val/nll"] for e in events if e.kind == "validate"] for events in runs]
    assert nll[0] == nll[1]
    other = finished(Training(train=SHORT, seed=4), dataset)[1]
    assert [e.metrics["val/nll"] for e in other if e.kind == "validate"] != nll[0]


def test_likelihood_objectives_take_no_anchor_besides_their_own(dataset):
    for name in OBJECTIVES:
        loss = build(Training(train=SHORT, **trained_by(name)), dataset).loss
        matching = issubclass(OBJECTIVES[name], ScoreMatching)
        assert loss.anchor_weight == (1.0 if matching else 0.0), name
        assert (loss.anchor is not None) == (matching or name == "lazy_ml"), name


def test_the_loss_weights_what_the_configuration_says(dataset):
    config = Training(
        train=SHORT,
        objective=Dsm(weight=0.5),
        stabilise=StabiliseConfig(low_energy=0.1, latent_mean=0.2),
    )
    loss = build(config, dataset).loss
    assert (loss.weight, loss.low_energy, loss.latent_mean) == (0.5, 0.1, 0.2)


def options(**fields):
    """Returns what the objective of a configuration is called with, and what is annealed."""
    loss = _loss(Training(objective={"name": "dsm"} | fields), dense((4,)))
    return loss.objective.keywords, loss


def test_noise_is_one_number_or_annealed():
    found, loss = options(sigma=0.5)
    assert found == {"sigma": 0.5, "antithetic": False} and not loss.annealed
    _, loss = options(sigma=1.0, sigma_end=0.01)
    assert loss.hyperparameters(0.5) == {"sigma": pytest.approx(0.1)}


def test_options_of_an_objective_are_arguments_of_its_function_but_for_the_weight():
    found, _ = options(name="taylor_sm", slices=3, step=0.1)
    assert found == {
        "slices": 3,
        "step": 0.1,
        "directions": "rademacher",
        "estimator": "taylor_cv",
    }
    found, loss = options(name="ssm_vr", weight=2.0)
    assert found == {"slices": 1, "directions": "rademacher"}
    assert not loss.annealed and loss.weight == 2.0


def test_more_seconds_end_nothing_and_few_end_all(dataset):
    brief = SHORT.model_copy(update={"max_seconds": 1e-6, "steps": 1000})
    trainer, _ = finished(Training(train=brief), dataset)
    assert trainer.step <= 10


def rows_of(work):
    """Returns the rows of a training."""
    return metrics_log.read(work / metrics_log.FILE)


def lone(work, listener=lambda rows: None):
    """Returns the place of a lone worker whose rows go to a file, and to a listener."""
    return WorkerContext(Reporter(work / metrics_log.FILE, listener=listener).log)


def driven(dataset, shard, work, *steps, train=SHORT, place=None):
    """Trains to the end; returns the events, and what was returned at the end.

    The weights break at some steps, of the first try and of the second.
    """
    trainer = build(Training(train=train), dataset, shard=shard)
    broken(trainer, *steps[:1], again=steps[1:])
    recorder = TrainingLoop(trainer, work, place or lone(work))
    events = []
    for event in trainer.run():
        recorder.take(event)
        events.append(event)
    return events, recorder.finish()


def test_a_training_that_breaks_goes_on_and_is_told(dataset, tmp_path):
    events, result = driven(dataset, (0, 1), tmp_path, 8)
    (warning,) = result["warnings"]
    assert "step 8: found a loss of nan" in warning and "went back to step 6" in warning
    written = rows_of(tmp_path)
    (back,) = [row for row in written if row["kind"] == metrics_log.WENT_BACK]
    assert (back["step"], back["note"]) == (6, warning)
    assert [row["step"] for row in metrics_log.curve(written, "validate")] == [0, 6, 12]
    assert [row["step"] for row in metrics_log.curve(written, "log")] == [3, 6, 9, 12]
    assert result["steps"] == 12 and result["verdict"] == "ended after 12 steps"
    rates = [row["metrics"]["train/lr"] for row in metrics_log.curve(written, "log")]
    plain = [e.metrics["train/lr"] for e in finished(Training(train=SHORT), dataset)[1]
             if e.kind == "log"]  # fmt: skip
    assert rates == pytest.approx([*plain[:2], *(rate / 4 for rate in plain[2:])])


def test_one_that_breaks_twice_delivers_its_best(dataset, tmp_path):
    _, result = driven(dataset, (0, 1), tmp_path, 8, 10)
    checkpoints = Checkpoints(tmp_path / loop.CHECKPOINTS)
    assert result["steps"] == result["best_step"] == 6 and len(result["warnings"]) == 2
    assert result["verdict"].startswith("became non-finite twice, the last time at step 10")
    tensors = load(checkpoints.path(6)).state_dict().values()
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_one_without_a_retry_is_an_error(dataset, tmp_path):
    config = Training(train=SHORT).without_retry.train
    with pytest.raises(NonFinite, match="step 8"):
        driven(dataset, (0, 1), tmp_path, 8, train=config)


def test_a_worker_that_was_killed_remembers_the_best(dataset, tmp_path, monkeypatch):
    """The checkpoint that it goes on from is not the best one."""
    config = Training(train=SHORT.model_copy(update={"lr": 0.5}))
    recorder = TrainingLoop(build(config, dataset), tmp_path, lone(tmp_path))
    for event in recorder.training.run():
        recorder.take(event)
        if recorder.training.step == 9:
            recorder.report(keep=True)
            break
    again = TrainingLoop(build(config, dataset), tmp_path, lone(tmp_path))
    again.resume()
    assert again.training.step == 9 and again.training.best == again.training.state.best_step == 0
    (row,) = again.rows
    assert (row["kind"], row["note"]) == (metrics_log.RESTARTED, "resumes from step 9")


def interrupting(trainer, step):
    """Lets a signal come in the middle of a step."""
    plain = trainer.train_step

    def interrupted(batch):
        if trainer.step == step:
            signal.raise_signal(signal.SIGINT)
        plain(batch)

    trainer.train_step = interrupted
    return trainer


def test_each_step_and_each_batch_of_a_validation_restarts_the_watch(
    dataset, tmp_path, monkeypatch
):
    config = Training(train=SHORT, cluster=ClusterConfig(patience=1e-6))
    monkeypatch.setattr("ebflow.train.ROWS", 5)
    restarts = []
    watch = SimpleNamespace(
        dump_traceback_later=lambda *_, **__: restarts.append(trainer.step),
        cancel_dump_traceback_later=lambda: None,
    )
    monkeypatch.setattr(loop, "faulthandler", watch)
    trainer = build(config, dataset)
    TrainingLoop(trainer, tmp_path, lone(tmp_path)).run()
    assert set(restarts) == set(range(13)) and restarts.count(12) > 50 / 5


@pytest.mark.parametrize("step", [3, 4, 11])
def test_an_interrupted_worker_saves_what_it_has_done(dataset, tmp_path, step):
    """After a step at which nothing was told, and after the last."""
    config, work = Training(train=SHORT), tmp_path / "work"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        made = interrupting(build(config, dataset), step)
        TrainingLoop(made, work, lone(work)).run()
    checkpoints = Checkpoints(work / loop.CHECKPOINTS)
    assert checkpoints.newest()[0] == step + 1 and signal.getsignal(signal.SIGINT) == before
    TrainingLoop(build(config, dataset), work, lone(work)).run()
    whole, events = finished(config, dataset)
    last = read(checkpoints.path(12)).model
    assert all(torch.equal(last[name], t) for name, t in whole.flow.state_dict().items())
    told = [row for row in rows_of(work) if row["kind"] == "log"]
    losses = [event.metrics["train/loss"] for event in events if event.kind == "log"]
    assert [row["metrics"]["train/loss"] for row in told] == losses


def test_a_lone_worker_trains_here(dataset, home, tmp_path, monkeypatch):
    monkeypatch.setenv(environment.LOOPBACK_ALONE, "0")
    config, work = Training(train=SHORT), tmp_path / "work"
    work.mkdir()
    preprocessing = tmp_path / "preprocessing.safetensors"
    fit_preprocessing(config.preprocess_fit, dataset).save(preprocessing)
    result = fit(config, dataset.folder, preprocessing, work, Reporter(work / metrics_log.FILE))
    assert not ray.is_initialized()
    assert result["verdict"] == "ended after 12 steps"
    others = rows_of(work)
    whole, _ = finished(config, dataset)
    last = read(Checkpoints(work / loop.CHECKPOINTS).path(12)).model
    assert all(torch.equal(last[name], t) for name, t in whole.flow.state_dict().items())
    again = fit(config, dataset.folder, preprocessing, work, Reporter(work / metrics_log.FILE))
    assert again["steps"] == 12
    rows = rows_of(work)
    assert [row["kind"] for row in rows[len(others) :]] == [metrics_log.RESTARTED]


class Away:
    """The run of a stage whose server is away."""

    def log_rows(self, rows, *, wait):
        pass

    def complete(self, rows):
        raise MlflowException("away")


def test_a_training_ends_while_mlflow_is_away(dataset, home, tmp_path):
    config, preprocessing = Training(train=SHORT), tmp_path / "preprocessing.safetensors"
    fit_preprocessing(config.preprocess_fit, dataset).save(preprocessing)
    reporter = Reporter(tmp_path / metrics_log.FILE, Away())
    fit(config, dataset.folder, preprocessing, tmp_path, reporter, here=True)
    with pytest.raises(MlflowException, match="away"):
        reporter.finish()


def test_rows_are_told_once_and_validations_at_once_and_best_and_last_are_saved(dataset, tmp_path):
    reported = []
    events, result = driven(dataset, (0, 1), tmp_path, place=lone(tmp_path, reported.append))
    steps = [row["step"] for some in reported for row in some]
    assert steps == [event.step for event in events]
    assert [row["step"] for row in rows_of(tmp_path)] == steps
    ends = [rows[-1]["step"] for rows in reported if any(r["kind"] == "validate" for r in rows)]
    assert ends == [0, 6, 12]
    assert result["steps"] == 12 and result["verdict"] == "ended after 12 steps"
    assert set(result["seconds"]) == {"step", "data", "log", "validate", "report", "checkpoint"}
    checkpoints = Checkpoints(tmp_path / loop.CHECKPOINTS)
    last = check(checkpoints.path(12))["progress"]
    assert (last["step"], last["verdict"]) == (12, "ended after 12 steps")
    assert check(checkpoints.path(result["best_step"]))["progress"]["step"] == result["best_step"]


def test_a_training_that_the_time_limit_cuts_short_is_a_warning(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(FlowTraining, "seconds", property(lambda self: float(self.step)))
    train = SHORT.model_copy(update={"steps": 4000, "max_seconds": 30, "lr": 1e-3})
    _, result = driven(dataset, (0, 1), tmp_path, train=train)
    verdict = "stopped after 30 s (step 30 of 4,000)"
    assert result["verdict"] == verdict and result["limited"]
    line = f"{verdict} while the validation NLL still fell: raise --train.max-seconds"
    assert result["warnings"] == [line]


def test_other_ranks_report_as_often_and_write_nothing(dataset, tmp_path):
    reported = []
    place = WorkerContext(lambda rows, keep: reported.append(rows))
    driven(dataset, (1, 2), tmp_path, place=place)
    assert reported and not list(tmp_path.iterdir())


def test_what_led_to_a_checkpoint_is_told_before_it_is_there(dataset, tmp_path, monkeypatch):
    last, save = {}, Checkpoints.save

    def saved(self, trainer):
        last[trainer.step] = rows_of(tmp_path)[-1]["step"]
        save(self, trainer)

    monkeypatch.setattr(Checkpoints, "save", saved)
    driven(dataset, (0, 1), tmp_path)
    assert last == {step: step for step in last} and {0, 12} <= last.keys()


def test_a_gpu_is_named_by_its_number():
    """As ``torch.cuda.set_device`` wants it."""
    assert WorkerContext.device.index is not None


def test_between_reports_rows_gather(tmp_path):
    trainer = SimpleNamespace(
        state=SimpleNamespace(verdict=""), progress=0.5, step=0, agreed=float, shard=(0, 1)
    )
    reported = []
    place = WorkerContext(lambda rows, keep: reported.append(rows))
    recorder = TrainingLoop(trainer, tmp_path, place)
    for step in range(5):
        recorder.take(Event("log", step, {"train/loss": 1.0}))
    assert not reported and len(recorder.rows) == 5
    recorder.reported -= 2 * loop.REPORT_S
    recorder.take(Event("log", 5, {"train/loss": 1.0}))
    assert len(reported[0]) == 6 and not recorder.rows


@pytest.fixture(scope="module")
def given(tmp_path_factory, tabular_file):
    """Three columns given two others and a category."""
    columns = pq.read_table(tabular_file).select(range(5))
    size = np.where(columns[0].to_numpy() > 14, "large", "small")
    folder = tmp_path_factory.mktemp("data")
    pq.write_table(columns.append_column("size", [size]), folder / "given.parquet")
    context = ["size", *columns.column_names[3:]]
    prepare(folder / "given.parquet", folder / "prepared", context=context)
    return Dataset(folder / "prepared")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_given_a_context(name, given):
    trainer, _ = finished(Training(train=SHORT, **trained_by(name)), given)
    split = given.split("validation")
    found = trainer.flow.log_prob(split.tensor(), context=split.resident.context)
    turned = trainer.flow.log_prob(split.tensor(), context=split.resident.context.flip(0))
    assert found.isfinite().all() and not torch.equal(found, turned)
    standard = trainer.flow.standardized(given.split("train").resident.context)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(4).to(standard))
    assert [c.levels for c in trainer.flow.columns.context] == [("large", "small"), (), ()]


@pytest.mark.parametrize("changes", [{}, {"augment": "cifar10"}, {"noise": 0.1}, {"given": True}])
def test_a_resumed_training_is_the_uninterrupted_one(
    dataset, table, given, tmp_path, changes, monkeypatch
):
    monkeypatch.setattr(ebflow.train, "VALIDATED", 20)
    dataset = table if "noise" in changes else given if "given" in changes else dataset
    changes = {name: value for name, value in changes.items() if name != "given"}
    options = PreprocessConfig(shrinkage=0.01)
    config = Training(train=SHORT.model_copy(update=changes), preprocess=options)
    trainings = (build(config, dataset) for _ in range(3))
    same_when_resumed(*trainings, 6, tmp_path / "checkpoint")
