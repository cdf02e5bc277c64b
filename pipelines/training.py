"""From a configuration to a trainer, and the loop that each Ray worker runs around it."""

__all__ = ["SAVE_S", "Reporter", "RowWriter", "build", "fit", "row", "worker"]

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn

from ebflow import objectives, schedules
from ebflow.anchor import Anchor
from ebflow.data.augment import AUGMENTATIONS, Augmentation, Composed, Noise
from ebflow.data.loader import Dataset
from ebflow.data.preprocessing import Preprocessing
from ebflow.errors import BadInput, NonFinite
from ebflow.flow import Flow
from ebflow.loss import Loss
from ebflow.parallel import split
from ebflow.randomness import generator
from ebflow.train import Event, Trainer
from pipelines import rows, store
from pipelines.config import LIKELIHOOD, ClusterConfig, ObjectiveConfig, TrainConfig, Training
from pipelines.environment import embedded
from pipelines.faults import told
from pipelines.nets import net
from pipelines.rendezvous import FileRendezvous

OF_THE_LOSS = ("sigma_end", "levels", "weight", "every")
"""Options of an objective that are no argument of its function."""

REPORT_S = 1.0
START_LIMIT = 5
"""Starts of the worker group that may time out before the training fails."""
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
    return Trainer(
        _flow(config, dataset, chain).to(device),
        dataset,
        loss=partial(_loss, config),
        optimizer=partial(_optimizer, train),
        schedule=_schedule(train),
        steps=train.steps,
        max_seconds=train.max_seconds,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        augment=_augment(train, dataset.split("train").shape),
        clip=train.clip,
        ema_decay=train.ema_decay,
        finish=config.stabilise.finish,
        validate_every=train.validate_every,
        patience=train.patience,
        log_every=train.log_every,
        precision=train.precision,
        seed=config.seed,
        shard=shard,
        wrap=wrap,
        config=config.model_dump(mode="json"),
    )


def _flow(config: Training, dataset: Dataset, chain: Preprocessing) -> Flow:
    flow = net(
        config.model,
        dataset.split("train").shape,
        generator=generator(config.seed, "weights"),
        dtype=getattr(torch, config.train.dtype),
    )
    return flow.preprocessed(chain, match_after=config.preprocess.match_after)


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
        matched,
        _objective(config.objective, anchor),
        weight=config.objective_weight,
        every=config.objective.every,
        annealed=_annealed(config.objective),
        anchor=anchor if weight or lazy else None,
        anchor_weight=weight,
        anchor_clean=rule.clean,
        low_energy=config.stabilise.low_energy,
        latent_mean=config.stabilise.latent_mean,
    )


def _objective(config: ObjectiveConfig, anchor: Anchor) -> objectives.Objective:
    function = objectives.OBJECTIVES[config.name]
    if config.name == "lazy_ml":
        return partial(function, anchor=anchor)
    given = {name: value for name, value in config.options.items() if name not in OF_THE_LOSS}
    if config.levels > 1:
        level = schedules.geometric(config.sigma, config.sigma_end)
        given["sigma"] = tuple(level(k / (config.levels - 1)) for k in range(config.levels))
    return partial(function, **given)


def _annealed(config: ObjectiveConfig) -> dict[str, schedules.Schedule]:
    """Returns what goes over the objective's options as training proceeds."""
    if config.sigma_end is None or config.levels > 1:
        return {}
    return {"sigma": schedules.geometric(config.sigma, config.sigma_end)}


def _optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    kinds = {
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(torch.optim.AdamW, fused=True),
        "rmsprop": torch.optim.RMSprop,
        "sgd": partial(torch.optim.SGD, fused=True),
    }
    return kinds[config.optimizer](parameters, lr=config.lr, weight_decay=config.weight_decay)


def _schedule(config: TrainConfig) -> schedules.Schedule:
    kinds = {
        "constant": schedules.constant,
        "cosine": schedules.cosine,
        "multistep": schedules.multistep(config.gamma, config.milestones, config.until),
    }
    return schedules.warmed(kinds[config.schedule], config.warmup)


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Trains on one Ray worker, from the last checkpoint on if there is one.

    Arguments:
        job: ``config`` (fields of :class:`Training`), ``data`` (the prepared folder), ``front``
            (the file of the fitted chain) and ``store`` (the id of the store that they lie in).

    Returns:
        ``error``, the same on all workers, which no restart would mend; or else what
        :meth:`Reporter.finish` tells.

    Raises:
        BadInput: If this worker does not see the store.
    """
    if not embedded():
        store.expect(job["store"])
    config = Training.model_validate(job["config"])
    torch.set_num_threads(config.train.threads)
    context = ray.train.get_context()
    shard = (context.get_world_rank(), context.get_world_size())
    try:
        trainer = build(
            config,
            Dataset(job["data"]),
            Preprocessing.load(Path(job["front"])),
            device=_device(config.cluster),
            shard=shard,
            wrap=_wrap(config.cluster),
        )
        _resume(trainer)
        return {"began": time.time(), **_run(trainer, shard)}
    except (BadInput, NonFinite) as error:
        return {"error": error}


def _device(config: ClusterConfig) -> torch.device:
    if not config.gpu:
        return torch.device("cpu")
    device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return device


def _run(trainer: Trainer, shard: tuple[int, int]) -> dict[str, Any]:
    reporter = Reporter(trainer, shard)
    for event in trainer.run():
        reporter.tell(event)
    return reporter.finish()


def _wrap(config: ClusterConfig) -> Callable[[nn.Module], nn.Module]:
    if config.workers == 1:
        return lambda module: module
    if config.split:
        return split
    return partial(nn.parallel.DistributedDataParallel, broadcast_buffers=False)


def _resume(trainer: Trainer) -> None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.resume(folder)


def row(trainer: Trainer, kind: str, metrics: Mapping[str, float], note: str = "") -> rows.Row:
    """Returns what a trainer told just now, as a row of its file."""
    return {
        "kind": kind,
        "step": trainer.step,
        "share": min(1.0, trainer.progress),
        "time": time.time(),
        "metrics": metrics,
        "note": note,
    }


class Reporter:
    """Reports what a trainer tells, seldom enough to cost little, on all ranks alike.

    Arguments:
        trainer: The trainer.
        shard: Rank and number of workers.
    """

    def __init__(self, trainer: Trainer, shard: tuple[int, int]) -> None:
        self.trainer, self.rank, self.world = trainer, *shard
        self.rows = [row(trainer, rows.RESUMED, {})] if trainer.step else []
        self.nll = math.inf
        self.reported = self.saved = time.monotonic()

    def tell(self, event: Event) -> None:
        """Takes an event; reports it, with those before it, when it is time.

        The last one is left to :meth:`finish`.
        """
        self.rows.append(row(self.trainer, event.kind, event.metrics, event.note))
        validated = event.kind == "validate"
        self.nll = event.metrics["val/nll"] if validated else self.nll
        if self.trainer.verdict:
            return
        if validated and (event.best or self._agreed(self.saved, SAVE_S)):
            self.save()
        elif self._agreed(self.reported, REPORT_S):
            self._report(None)

    def save(self) -> None:
        """Reports what is left, with a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            path, checkpoint = str(Path(folder) / "checkpoint"), None
            self.trainer.save(path)
            if self.rank == 0:
                checkpoint = ray.train.Checkpoint.from_directory(path)
            self._report(checkpoint)
        self.saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Saves the end; returns the verdict, the steps, the best step and the seconds spent."""
        trainer = self.trainer
        with trainer.clock("report"):
            self.save()
        return {
            "verdict": trainer.verdict,
            "steps": trainer.step,
            "best_step": trainer.best_step,
            "seconds": dict(trainer.clock.totals),
        }

    def _report(self, checkpoint: ray.train.Checkpoint | None) -> None:
        ray.train.report({"rows": self.rows, "val/nll": self.nll}, checkpoint=checkpoint)
        self.rows, self.reported = [], time.monotonic()

    def _agreed(self, since: float, seconds: float) -> bool:
        late = time.monotonic() - since > seconds
        if self.world == 1:
            return late
        shared = torch.tensor([float(late)], device=self.trainer.device)
        torch.distributed.broadcast(shared, 0)
        return bool(shared)


class RowWriter(ray.train.UserCallback):
    """Appends the rows that rank 0 reports, and workers' failures, to a file.

    Runs in Ray Train's controller.

    Arguments:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = {"step": 0, "share": 0.0}

    def after_report(
        self,
        run_context: Any,  # noqa: ANN401
        metrics: list[dict[str, Any]],
        checkpoint: ray.train.Checkpoint | None,
    ) -> None:
        """Appends the rows of one report."""
        found = metrics[0]["rows"]
        rows.append(self.path, found)
        if found:
            self.last = {name: found[-1][name] for name in self.last}

    def after_exception(
        self,
        run_context: Any,  # noqa: ANN401
        worker_exceptions: dict[int, Exception],
    ) -> None:
        """Appends what befell the workers that failed together, as one row."""
        failed = [f"worker {rank}: {told(e)}" for rank, e in sorted(worker_exceptions.items())]
        row = {"kind": rows.FAILURE, "time": time.time(), "metrics": {}, "note": "; ".join(failed)}
        rows.append(self.path, [{**row, **self.last}])


def fit(
    config: Training,
    data: Path,
    front: Path,
    work: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> ray.train.Result:
    """Trains on Ray; goes on from what an earlier call left in ``work``.

    Arguments:
        config: What to train.
        data: The prepared folder.
        front: The file of the fitted chain.
        work: Where checkpoints and rows go.
        callbacks: Are told of every report, besides the writer of the rows.
    """
    fields = config.model_dump(mode="json")
    inputs = {"data": str(data), "front": str(front)}
    job = {"config": fields, **inputs, "store": store.identity()}
    return ray.train.torch.TorchTrainer(
        worker,
        train_loop_config=job,
        torch_config=FileRendezvous(folder=str(work)) if embedded() else None,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.cluster.workers, use_gpu=config.cluster.gpu
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(work),
            failure_config=ray.train.FailureConfig(
                max_failures=config.cluster.max_failures, controller_failure_limit=START_LIMIT
            ),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute="val/nll",
                checkpoint_score_order="min",
            ),
            callbacks=[RowWriter(work / rows.FILE), *callbacks],
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    ).fit()
