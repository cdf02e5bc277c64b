"""From a configuration to a trainer, and the loop around it, here or in Ray's workers."""

__all__ = ["CHECKPOINTS", "SAVE_S", "FailureWriter", "Reporter", "build", "fit", "row", "worker"]

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.checkpoint import Checkpoints, resume
from ebflow.data.loader import Dataset
from ebflow.data.manifest import Manifest
from ebflow.errors import BadInput, NonFinite
from ebflow.execution import shard_weights
from ebflow.flow import Flow
from ebflow.loss import Loss, Schedule, constant, cosine, epochs, geometric, multistep, warmed
from ebflow.preprocessing import Preprocessing
from ebflow.randomness import generator
from ebflow.rivals import RIVALS
from ebflow.train import Augmentation, Event, Trainer
from pipelines import store
from pipelines.cluster.connection import largest_node, launched
from pipelines.cluster.environment import embedded
from pipelines.cluster.waiting import waiting
from pipelines.config import LIKELIHOOD, ClusterConfig, ObjectiveConfig, TrainConfig, Training
from pipelines.errors import told
from pipelines.store import writer
from pipelines.tracking.provenance import code
from pipelines.training import metrics_log
from pipelines.training.augment import AUGMENTATIONS, Composed, Noise
from pipelines.training.nets import net
from pipelines.training.rendezvous import FileRendezvous
from pipelines.training.watchdog import Watchdog, hung

OF_THE_LOSS = ("sigma_end", "levels", "weight", "every")
"""Options of an objective that are no argument of its function."""

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints below that of the training."""

REPORT_S = 1.0
HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
PLACE_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PLACE_S = 10 * 365 * 86_400
"""How long workers wait for their places: a node that boots slowly is no failed start, and a place
in Ray's queue is not given up."""

START_LIMIT = 5
"""Starts of workers that may fail before the training does."""
SAVE_S = 20.0


def build(
    config: Training,
    dataset: Dataset,
    chain: Preprocessing,
    *,
    device: torch.device | str = "cpu",
    shard: tuple[int, int] = (0, 1),
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> Trainer:
    """Returns the trainer of a configuration on prepared data, behind their fitted chain."""
    train = config.train
    flow = _flow(config, dataset, chain).to(device)
    flow.columns = _columns(dataset.manifest)
    loss = _loss(config, flow.matched)
    return Trainer(
        flow,
        dataset,
        loss=loss,
        anchor=loss.anchor,
        watch=loss.hyperparameters,
        optimizer=partial(_optimizer, train, _rate(train, dataset.split("train").width)),
        schedule=_schedule(train),
        decay=_decay(train),
        steps=train.steps,
        max_seconds=train.max_seconds,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        augment=_augment(train, dataset.split("train").shape),
        clip=train.clip,
        ema_decay=train.ema_decay,
        validate_every=train.validate_every,
        patience=train.patience,
        log_every=train.log_every,
        precision=train.precision,
        retry=train.retry,
        seed=config.seed,
        shard=shard,
        wrap=wrap,
        config={**config.model_dump(mode="json"), "commit": code()["commit"]},
    )


def _flow(config: Training, dataset: Dataset, chain: Preprocessing) -> Flow:
    given = dataset.manifest.context
    flow = net(
        config.model,
        dataset.split("train").shape,
        mixture=chain.base,
        context=given.width if given else 0,
        generator=generator(config.seed, "weights"),
        dtype=getattr(torch, config.train.dtype),
    )
    if given:
        flow.standardise_context(torch.tensor(given.mean), torch.tensor(given.std))
    return flow.preprocessed(chain, match_after=config.preprocess.match_after)


def _columns(manifest: Manifest) -> dict[str, Any]:
    """Returns what a checkpoint keeps of the data's columns, as ``ebflow.fit`` does."""
    known = manifest.columns.model_dump(mode="json") if manifest.columns else {"names": None}
    kept = {"column": manifest.source["column"], "shape": list(manifest.shape),
            "resize": manifest.source.get("resize")}  # fmt: skip
    given = manifest.context and manifest.context.model_dump(
        exclude={"mean", "std", "label"}, mode="json"
    )
    values = {"dtype": manifest.dtype, "levels": manifest.levels, "context": given}
    return {**known, **kept, **values}


def _augment(config: TrainConfig, shape: Sequence[int]) -> Augmentation | None:
    """Returns what is done to training rows at every step: images are moved, then noised."""
    parts: list[Augmentation] = []
    if config.augment != "none":
        parts.append(AUGMENTATIONS[config.augment](shape))
    if config.noise:
        parts.append(Noise(config.noise))
    return Composed(*parts) if parts else None


def _loss(config: Training, matched: Flow) -> Loss:
    rule = config.anchor
    lazy = config.objective.name == "lazy_ml"
    weight = 0.0 if config.objective.name in LIKELIHOOD else rule.weight
    anchor = Anchor(
        matched,
        interval=rule.interval,
        tolerance=rule.tolerance,
        check_every=rule.check_every,
        seed=config.seed,
    )
    return Loss(
        _objective(config.objective, anchor),
        weight=config.objective_weight,
        every=config.objective.every,
        annealed=_annealed(config.objective),
        anchor=anchor if weight or lazy else None,
        anchor_weight=weight,
        anchor_clean=rule.clean,
        low_energy=config.stabilise.low_energy,
        latent_mean=config.stabilise.latent_mean,
        finish=config.stabilise.finish,
    )


def _objective(config: ObjectiveConfig, anchor: Anchor) -> objectives.Objective:
    function = {**objectives.OBJECTIVES, **RIVALS}[config.name]
    if config.name == "lazy_ml":
        return partial(function, anchor=anchor)
    given = {name: value for name, value in config.options.items() if name not in OF_THE_LOSS}
    if config.levels > 1:
        level = geometric(config.sigma, config.sigma_end)
        given["sigma"] = tuple(level(k / (config.levels - 1)) for k in range(config.levels))
    return partial(function, **given)


def _annealed(config: ObjectiveConfig) -> dict[str, Schedule]:
    """Returns what goes over the objective's options as training proceeds."""
    if config.sigma_end is None or config.levels > 1:
        return {}
    return {"sigma": geometric(config.sigma, config.sigma_end)}


def _rate(config: TrainConfig, width: int) -> float:
    """Returns the learning rate for events of ``width`` elements."""
    return config.lr * math.sqrt((config.lr_width or width) / width)


def _optimizer(
    config: TrainConfig, rate: float, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    kinds = {
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(torch.optim.AdamW, fused=True),
        "rmsprop": torch.optim.RMSprop,
        "sgd": partial(torch.optim.SGD, fused=True),
    }
    return kinds[config.optimizer](parameters, lr=rate, weight_decay=config.weight_decay)


def _schedule(config: TrainConfig) -> Schedule:
    stretched = constant if config.epoch else multistep(config.gamma, config.milestones)
    kinds = {"constant": constant, "cosine": cosine, "multistep": stretched}
    return warmed(kinds[config.schedule], config.warmup)


def _decay(config: TrainConfig) -> Callable[[int], float]:
    """Returns what the number of steps, and not progress, does to the learning rate."""
    if config.schedule != "multistep" or config.epoch is None:
        return lambda step: 1.0
    return epochs(config.gamma, config.epoch, config.milestones)


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Trains on one Ray worker, from the last sound checkpoint on if there is one.

    Arguments:
        job: ``config`` (fields of :class:`Training`), ``data`` (the prepared folder), ``front``
            (the file of the fitted chain), ``work`` (where checkpoints are), ``store`` (the id
            of the store that all of them lie in) and ``callbacks`` (told of every report here).

    Returns:
        ``error``, the same on all workers, which no restart would mend; or else what
        :meth:`Reporter.finish` tells.

    Raises:
        BadInput: If this worker does not see the store, or what is to be read there.
    """
    if not embedded():
        store.expect(job["store"])
    config = Training.model_validate(job["config"])
    torch.set_num_threads(config.train.threads)
    context = ray.train.get_context()
    shard = (context.get_world_rank(), context.get_world_size())
    data, front = (store.present(Path(job[name])) for name in ("data", "front"))
    work = Path(job["work"])
    work.mkdir(parents=True, exist_ok=True)
    try:
        with Watchdog(work, shard[0], config.cluster.patience) as watchdog:
            trainer = build(
                config,
                Dataset(data),
                Preprocessing.load(front),
                device=_device(config.cluster),
                shard=shard,
                wrap=_wrap(config.cluster),
            )
            reporter = _resumed(trainer, work, job["callbacks"])
            ended = {"began": time.time(), **_run(reporter, watchdog)}
    except (BadInput, NonFinite) as error:
        return {"error": error}
    if context.get_local_rank() == 0:
        store.release(work / CHECKPOINTS)
    return ended


def _device(config: ClusterConfig) -> torch.device:
    if not config.gpu:
        return torch.device("cpu")
    device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return device


def _run(reporter: "Reporter", watchdog: Watchdog) -> dict[str, Any]:
    for event in reporter.trainer.run():
        reporter.tell(event)
        watchdog.feed()
    return reporter.finish()


def _wrap(config: ClusterConfig) -> Callable[[nn.Module], nn.Module]:
    if config.workers == 1:
        return lambda module: module
    if config.split:
        return shard_weights
    return partial(nn.parallel.DistributedDataParallel, broadcast_buffers=False)


def _resumed(
    trainer: Trainer, work: Path, callbacks: Sequence[ray.train.UserCallback] = ()
) -> "Reporter":
    """Lets a trainer go on from the newest sound checkpoint, which rank 0 names for all."""
    checkpoints = Checkpoints(work / CHECKPOINTS)
    if ray.train.get_context().get_local_rank() == 0:
        store.restore(checkpoints.folder)
    trainer.wait()
    found, note = checkpoints.newest() if trainer.shard[0] == 0 else (None, "")
    step = int(trainer.agreed(-1 if found is None else found))
    if step >= 0:
        resume(trainer, checkpoints.path(step), best=checkpoints.best(step))
        note = note or f"goes on from step {step}"
    return Reporter(trainer, work, note, callbacks)


def row(
    trainer: Trainer, kind: str, metrics: Mapping[str, float], note: str = ""
) -> metrics_log.Row:
    """Returns what a trainer told just now, as a row of its file."""
    return {
        "kind": kind,
        "step": trainer.step,
        "share": 1.0 if trainer.verdict else min(1.0, trainer.progress),
        "time": time.time(),
        "metrics": metrics,
        "note": note,
    }


class Reporter:
    """Writes down and reports what a trainer tells, seldom enough to cost little.

    All ranks report alike, in Ray Train and so to each other; rank 0 writes. What led to a
    checkpoint is in the file of rows before the checkpoint is there.

    Arguments:
        trainer: The trainer.
        work: Folder of the checkpoints and the file of rows.
        note: What to tell the user first.
        callbacks: Are told of every report, as Ray Train tells them of launched workers'.
    """

    def __init__(
        self,
        trainer: Trainer,
        work: Path,
        note: str = "",
        callbacks: Sequence[ray.train.UserCallback] = (),
    ) -> None:
        self.trainer, self.rank, self.callbacks = trainer, trainer.shard[0], callbacks
        self.checkpoints, self.file = Checkpoints(work / CHECKPOINTS), work / metrics_log.FILE
        self.rows = [row(trainer, metrics_log.RESUMED, {}, note)] if trainer.step or note else []
        self.reported = self.saved = time.monotonic()
        self.taken: frozenset[str] = frozenset()

    def tell(self, event: Event) -> None:
        """Takes an event; reports it, with those before it, when it is time.

        The last one is left to :meth:`finish`.
        """
        self.rows.append(row(self.trainer, event.kind, event.metrics, event.note))
        validated = event.kind == "validate"
        if self.trainer.verdict:
            return
        if event.kind == metrics_log.RESUMED:
            self.save()
        elif validated and (event.best or self._late(self.saved, SAVE_S)):
            self.save()
        elif self._late(self.reported, REPORT_S):
            self.save() if self._warned() else self._report()

    def save(self) -> None:
        """Reports what is left, and writes a checkpoint; both go to the storage too."""
        self._report()
        self.checkpoints.save(self.trainer)
        if self.rank == 0:
            writer.keep(self.file)
            store.mirror(self.checkpoints.folder, self.checkpoints.path(self.trainer.step))
        self.saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Saves the end; returns how it came to it: verdict, warnings, steps and seconds."""
        trainer = self.trainer
        with trainer.clock("report"):
            self.save()
        return {
            "verdict": trainer.verdict,
            "warnings": trainer.state.warnings,
            "steps": trainer.step,
            "best_step": trainer.state.best_step,
            "seconds": dict(trainer.clock.totals),
        }

    def _report(self) -> None:
        if self.rank == 0:
            writer.append(self.file, self.rows)
        told = {"rows": self.rows}
        ray.train.report(told)
        for callback in self.callbacks:
            callback.after_report(None, [told], None)
        self.rows, self.reported = [], time.monotonic()

    def _warned(self) -> bool:
        """Whether a node of the training is told for the first time that it will be taken."""
        info = ray.train.get_preemption_info()
        nodes = frozenset(info.preempted_node_ids if info else ())
        new, self.taken = nodes - self.taken, self.taken | nodes
        return bool(new)

    def _late(self, since: float, seconds: float) -> bool:
        return bool(self.trainer.agreed(time.monotonic() - since > seconds))


class FailureWriter(ray.train.UserCallback):
    """Appends workers' failures to the file of rows; runs in Ray Train's controller.

    Arguments:
        work: Folder of the file, and of what watchdogs leave.
    """

    def __init__(self, work: Path) -> None:
        self.work = work

    def after_exception(
        self,
        run_context: Any,  # noqa: ANN401
        worker_exceptions: dict[int, Exception],
    ) -> None:
        """Appends what befell the workers that failed together, as one row."""
        failed = (
            f"worker {rank}: {hung(self.work, rank) or told(error)}"
            for rank, error in sorted(worker_exceptions.items())
        )
        _note(self.work, metrics_log.FAILURE, "; ".join(failed))


def _note(work: Path, kind: str, note: str) -> None:
    """Appends a row that has no numbers, where the training is now."""
    last = next(reversed(metrics_log.read(work / metrics_log.FILE)[0]), {"step": 0, "share": 0.0})
    row = {"kind": kind, "step": last["step"], "share": last["share"], "time": time.time(),
           "metrics": {}, "note": note, "text": note}  # fmt: skip
    writer.append(work / metrics_log.FILE, [row])


def _scaling(config: Training, here: bool) -> ray.train.ScalingConfig:
    """Returns what Ray reserves for the workers; on this machine alone, no more than it has.

    By none, Ray Train means that the loop runs in this process.
    """
    if here:
        return ray.train.ScalingConfig(num_workers=0)
    workers, needs = config.cluster.workers, config.of_a_worker
    if embedded():
        share = math.floor(1e4 * largest_node() / workers) / 1e4
        needs["CPU"] = min(needs["CPU"], share)
    return ray.train.ScalingConfig(
        num_workers=workers, use_gpu=config.cluster.gpu, resources_per_worker=needs
    )


def fit(
    config: Training,
    data: Path,
    front: Path,
    work: Path,
    *,
    here: bool | None = None,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> ray.train.Result:
    """Trains by Ray Train; goes on from what an earlier call left in ``work``.

    Arguments:
        config: What to train.
        data: The prepared folder.
        front: The file of the fitted chain.
        work: Where checkpoints and rows go.
        here: Whether a lone worker trains in this process; None: as :func:`launched` has it.
        callbacks: Are told of every report.
    """
    here = not launched(config.cluster) if here is None else here
    fields = config.model_dump(mode="json")
    folders = {"data": str(data), "front": str(front), "work": str(work)}
    job = {"config": fields, **folders, "store": store.identity(),
           "callbacks": callbacks if here else ()}  # fmt: skip
    # What Ray itself can see: a process that answers no more.
    os.environ[HEALTH_TIMEOUT] = str(config.cluster.patience)
    os.environ[PLACE_TIMEOUT] = str(PLACE_S)
    if not here and (note := waiting("the training", config.needs)):
        _note(work, metrics_log.WAITING, note)
    if note := hung(work, 0):
        _note(work, metrics_log.FAILURE, f"worker 0: {note}")
    return ray.train.torch.TorchTrainer(
        worker,
        train_loop_config=job,
        torch_config=FileRendezvous(folder=str(work)) if embedded() else None,
        scaling_config=_scaling(config, here),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(work),
            failure_config=ray.train.FailureConfig(
                max_failures=config.cluster.max_failures, controller_failure_limit=START_LIMIT
            ),
            callbacks=[FailureWriter(work), *callbacks],
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    ).fit()
