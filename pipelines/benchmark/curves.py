"""``ebflow curves``: validation NLL against training time, objective beside objective.

Every cell (entry, seed) trains in this process, alone on the machine, for the same seconds of
steps and data; validation is not counted. A finished cell is a file and is not run again.
"""

__all__ = ["curves", "entries"]

import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ebflow.data.loader import Dataset
from ebflow.data.prepare import prepare
from ebflow.errors import BadInput, NonFinite
from ebflow.evaluation import evaluate
from ebflow.preprocessing import gaussian
from ebflow.train import Trainer
from pipelines.benchmark.curve_report import draw, table
from pipelines.cli.options import Curves
from pipelines.config import (
    AnchorConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
    Training,
    canonical,
)
from pipelines.config.recipes import mnist9k_dense
from pipelines.engine.digests import source_digest
from pipelines.training.preprocessing import baseline, fitted
from pipelines.training.trainers import build

LIKELIHOOD = ("ml", "relative_ml", "lazy_ml")
MATCHING = ("dsm", "ssm", "ssm_vr", "fd_ssm")
SIGMA = 0.1
SHRINKAGE = 1e-3
TOLERANCE = 0.2

INTERVALS = (20, 100, 500)
WEIGHTS = (0.1, 10.0)
SIGMAS = (0.03, 0.3)

SPARSE, DENSE = 100, 30
"""Steps between validations; dense for the slow steps of exact ML."""


def entries(options: Curves) -> dict[str, Training]:
    """Returns the configurations of a study by label."""
    studies = {"objectives": _objectives, "anchor": _anchors}
    return studies[options.study](_base(options))


def _base(options: Curves) -> Training:
    cnn = options.architecture == "convolutional"
    model = {"architecture": "convolutional", "kernel_size": options.kernel_size}
    return Training(
        train=TrainConfig(
            steps=1_000_000,
            max_seconds=options.seconds,
            batch_size=100,
            lr=options.lr,
            warmup=0.02,
            threads=options.threads,
            validate_every=SPARSE,
        ),
        model=ModelConfig(**model) if cnn else ModelConfig(depth=2),
        preprocess=PreprocessConfig(shrinkage=SHRINKAGE),
        anchor=AnchorConfig(tolerance=TOLERANCE),
    )


def _objectives(base: Training) -> dict[str, Training]:
    """Returns every objective; all but the last three share everything else."""
    found = {name: _objective(base, name, 0.0) for name in LIKELIHOOD}
    found |= {name: _objective(base, name, 0.0) for name in MATCHING}
    found |= {f"{name} + anchor": _objective(base, name, 1.0) for name in MATCHING}
    found |= {f"paper {name}": _paper(base, name) for name in ("ml", "dsm")}
    return found | {"recipe mnist9k": _recipe(base.train)}


def _anchors(base: Training) -> dict[str, Training]:
    """Returns likelihoods, and K, w and σ of an anchored DSM, one at a time.

    Where K is given there is no other rule; else the drift refreshes, after 100 steps at most.
    """
    dense = base.model.architecture == "dense"
    found = {name: _objective(base, name, 0.0) for name in ("ml", "relative_ml")[: 1 + dense]}
    for name in ("lazy_ml", "dsm"):
        centre = _objective(base, name, 1.0)
        found |= {f"{name} K = {k}": _every(centre, k) for k in INTERVALS} | {name: centre}
    for weight in WEIGHTS:
        found[f"dsm w = {weight:g} σ²"] = _dsm(base, SIGMA, weight)
    for sigma in SIGMAS:
        found[f"dsm σ = {sigma:g}"] = _dsm(base, sigma, 1.0)
    return found | {"ssm_vr": _objective(base, "ssm_vr", 1.0)}


def _every(base: Training, interval: int) -> Training:
    rule = base.anchor.model_copy(update={"interval": interval, "tolerance": None})
    return base.model_copy(update={"anchor": rule})


def _dsm(base: Training, sigma: float, weight: float) -> Training:
    objective = ObjectiveConfig(name="dsm", sigma=sigma, weight=weight * sigma**2)
    return base.model_copy(update={"objective": objective})


def _objective(base: Training, name: str, anchor: float) -> Training:
    every = DENSE if name == "ml" else SPARSE
    return base.model_copy(
        update={
            "objective": ObjectiveConfig.of(name, sigma=SIGMA),
            "anchor": base.anchor.model_copy(update={"weight": anchor}),
            "train": base.train.model_copy(update={"validate_every": every}),
        }
    )


def _paper(base: Training, name: str) -> Training:
    return base.model_copy(
        update={
            "preprocess": PreprocessConfig(normalise="none", scale=0.5),
            "model": ModelConfig(depth=2, sign=-1, bias=1.0, calibrated=False),
            "objective": ObjectiveConfig.of(name, sigma=1.0),
            "anchor": AnchorConfig(weight=0.0),
            "train": base.train.model_copy(
                update={
                    "optimizer": "rmsprop",
                    "lr": 1e-4,
                    "schedule": "constant",
                    "warmup": 0.0,
                    "validate_every": DENSE if name == "ml" else SPARSE,
                }
            ),
        }
    )


def _recipe(train: TrainConfig) -> Training:
    recipe = mnist9k_dense().training
    names = ("steps", "max_seconds", "threads", "validate_every")
    kept = {name: getattr(train, name) for name in names}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=kept)})


def curves(options: Curves, console: Console) -> list[dict[str, Any]]:
    """Trains what is not there yet, prints the table, and writes figure and table.

    Returns:
        The cells: label, seed, steps, seconds, nll (lists) and test_nll.
    """
    chosen = _chosen(options)
    output = options.output or Path(f"runs/curves/{options.study}-{options.architecture}")
    cells = output / "cells"
    with tempfile.TemporaryDirectory() as folder:
        dataset = _prepare(options, Path(folder) / "data")
        gaussian = _gaussian(dataset)
        cells.mkdir(parents=True, exist_ok=True)
        found = [
            _cell(cells, label, config.model_copy(update={"seed": seed}), dataset, console)
            for seed in range(options.seeds)
            for label, config in chosen.items()
        ]
    console.print(table(found, gaussian, options.seconds))
    figure = draw(found, gaussian["validation"], options.study)
    figure.savefig(output / "curves.png", dpi=130)
    text = json.dumps({"gaussian": gaussian, "cells": found}, indent=1)
    (output / "curves.json").write_text(text + "\n")
    console.print(f"figure and numbers: {output}", highlight=False)
    return found


def _chosen(options: Curves) -> dict[str, Training]:
    known = entries(options)
    for label in options.only:
        if label not in known:
            raise BadInput(f"--only: found {label!r}, expected one of {', '.join(known)}")
    return {label: known[label] for label in options.only or known}


def _prepare(options: Curves, folder: Path) -> Dataset:
    prepare(options.source, folder, validation=options.validation, test=options.test)
    return Dataset(folder)


def _gaussian(dataset: Dataset) -> dict[str, float]:
    chain = baseline(dataset, PreprocessConfig(shrinkage=SHRINKAGE))
    flow = gaussian(chain)
    return {name: evaluate(flow, dataset.split(name)).nll for name in ("validation", "test")}


def _cell(
    cells: Path,
    label: str,
    config: Training,
    dataset: Dataset,
    console: Console,
) -> dict[str, Any]:
    code = source_digest("pipelines.benchmark.curves")
    key = json.dumps([label, canonical(config), dataset.digest, code])
    path = cells / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"
    if not path.exists():
        cell = {"label": label, "seed": config.seed, **_train(config, dataset)}
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(cell) + "\n")
        draft.replace(path)
        console.print(
            f"{label}, seed {config.seed}: {cell['steps'][-1]} steps, "
            f"validation NLL {cell['nll'][-1]:.1f}; {cell['verdict']}",
            highlight=False,
        )
    return json.loads(path.read_text())


def _train(config: Training, dataset: Dataset) -> dict[str, Any]:
    torch.set_num_threads(config.train.threads)
    trainer = build(config.once, dataset, fitted(config.front, dataset))
    told: dict[str, list[float]] = {"seconds": [], "steps": [], "nll": []}
    try:
        for event in trainer.run():
            if event.kind == "validate":
                _append(told, trainer, event.metrics["val/nll"])
        ended, test = trainer.verdict, evaluate(trainer.averaged, dataset.split("test")).nll
    except NonFinite as error:
        ended, test = f"failed: {error}", math.nan
        _append(told, trainer, math.nan)
    return {**told, "test_nll": test, "verdict": ended}


def _append(told: dict[str, list[float]], trainer: Trainer, nll: float) -> None:
    for name, value in (("seconds", trainer.seconds), ("steps", trainer.step), ("nll", nll)):
        told[name].append(value)
