"""``ebflow curves``: validation NLL against training time, objective beside objective.

Every cell (entry, seed) trains in this process, alone on the machine, for the same seconds of
steps and data; validation is not counted. A finished cell is a file and is not run again.
"""

__all__ = ["curves", "draw", "entries"]

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ebflow.data.loader import Dataset
from ebflow.data.prepare import prepare
from ebflow.data.preprocessing import gaussian as fit_gaussian
from ebflow.errors import BadInput, NonFinite
from ebflow.evaluate import evaluate
from ebflow.train import Trainer
from pipelines.config import (
    AnchorConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
    Training,
    canonical,
)
from pipelines.options import Curves
from pipelines.recipes import mnist9k
from pipelines.report import BASELINE, STYLE
from pipelines.sources import source_digest
from pipelines.training import build

LIKELIHOOD = ("ml", "relative_ml", "lazy_ml")
MATCHING = ("dsm", "ssm", "ssm_vr", "fd_ssm")
TIMES = (0.04, 0.13, 0.33, 0.85)
"""Shares of the training time at which the table reads the curves."""


def entries(options: Curves) -> dict[str, Training]:
    """Returns the configurations by label; all but the last two share everything else."""
    train = TrainConfig(
        steps=1_000_000,
        max_seconds=options.seconds,
        batch_size=100,
        lr=2e-3,
        warmup=0.02,
        threads=options.threads,
        validate_every=100,
    )
    base = Training(
        train=train,
        model=ModelConfig(depth=2),
        preprocess=PreprocessConfig(shrinkage=1e-3),
        anchor=AnchorConfig(tolerance=0.2),
    )
    found = {name: _objective(base, name, 0.0) for name in LIKELIHOOD}
    found |= {name: _objective(base, name, 0.0) for name in MATCHING}
    found |= {f"{name} + anchor": _objective(base, name, 1.0) for name in MATCHING}
    found |= {f"paper {name}": _paper(base, name) for name in ("ml", "dsm")}
    return found | {"recipe mnist9k": _recipe(train)}


def _objective(base: Training, name: str, anchor: float) -> Training:
    weight = 0.1 if anchor else 1.0
    return base.model_copy(
        update={
            "objective": ObjectiveConfig(name=name, weight=weight),
            "anchor": base.anchor.model_copy(update={"weight": anchor}),
        }
    )


def _paper(base: Training, name: str) -> Training:
    return base.model_copy(
        update={
            "preprocess": PreprocessConfig(normalise="none", scale=0.5),
            "model": ModelConfig(depth=2, sign=-1, bias=1.0, calibrated=False),
            "objective": ObjectiveConfig(name=name, sigma=1.0, weight=1.0),
            "anchor": AnchorConfig(weight=0.0),
            "train": base.train.model_copy(
                update={"optimizer": "rmsprop", "lr": 1e-4, "schedule": "constant", "warmup": 0.0}
            ),
        }
    )


def _recipe(train: TrainConfig) -> Training:
    recipe = mnist9k().training
    names = ("steps", "max_seconds", "threads", "validate_every")
    kept = {name: getattr(train, name) for name in names}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=kept)})


def curves(options: Curves, console: Console) -> list[dict[str, Any]]:
    """Trains what is not there yet, prints the table, and writes figure and table.

    Returns:
        The cells: label, seed, steps, seconds, nll (lists) and test_nll.
    """
    chosen = _chosen(options)
    cells = options.output / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _prepare(options, Path(folder) / "data")
        gaussian = _gaussian(dataset)
        found = [
            _cell(cells, label, config.model_copy(update={"seed": seed}), dataset, console)
            for seed in range(options.seeds)
            for label, config in chosen.items()
        ]
    table = _table(found, gaussian, options.seconds)
    console.print(table)
    draw(found, gaussian["validation"]).savefig(options.output / "curves.png", dpi=130)
    text = json.dumps({"gaussian": gaussian, "cells": found}, indent=1)
    (options.output / "curves.json").write_text(text + "\n")
    console.print(f"figure and numbers: {options.output}", highlight=False)
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
    flow = fit_gaussian(dataset.split("train"))
    return {name: evaluate(flow, dataset.split(name)).nll for name in ("validation", "test")}


def _cell(
    cells: Path,
    label: str,
    config: Training,
    dataset: Dataset,
    console: Console,
) -> dict[str, Any]:
    code = source_digest("pipelines.training", "pipelines.curves")
    key = json.dumps([label, canonical(config), dataset.manifest.digest, code])
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
    trainer = build(config, dataset)
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


def _groups(cells: list[dict[str, Any]]) -> Mapping[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(cell["label"], []).append(cell)
    return groups


def _table(cells: list[dict[str, Any]], gaussian: Mapping[str, float], seconds: float) -> Table:
    table = Table(title="NLL in nats, mean over seeds (± half the range)", title_justify="left")
    times = [f"{share * seconds:.0f} s" for share in TIMES]
    for name in ("", "ms/step", *times, "end", "test"):
        table.add_column(name, justify="right" if name else "left")
    blank = [""] * len(TIMES)
    ends = (f"{gaussian['validation']:.1f}", f"{gaussian['test']:.1f}")
    table.add_row("full-covariance Gaussian", "", *blank, *ends)
    for label, group in _groups(cells).items():
        table.add_row(label, *_row(group, seconds))
    return table


def _row(group: list[dict[str, Any]], seconds: float) -> Iterator[str]:
    yield f"{np.mean([1e3 * c['seconds'][-1] / max(c['steps'][-1], 1) for c in group]):.1f}"
    for share in TIMES:
        at = [np.interp(share * seconds, c["seconds"], c["nll"]) for c in group]
        yield "failed" if np.isnan(at).any() else f"{np.mean(at):.0f}"
    yield _spread([cell["nll"][-1] for cell in group])
    yield _spread([cell["test_nll"] for cell in group])


def _spread(values: list[float]) -> str:
    if np.isnan(values).any():
        return "failed"
    half = f" ± {np.ptp(values) / 2:.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{half}"


def draw(cells: list[dict[str, Any]], gaussian: float) -> Figure:
    """Returns the figure: likelihood methods left, score matching plain and anchored right."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        colours = matplotlib.colormaps["tab10"].colors
        seen: dict[str, Any] = {}
        for label, group in _groups(cells).items():
            base = label.removesuffix(" + anchor")
            colour = seen.setdefault(base, colours[len(seen) % 10])
            axis = axes[int(base in MATCHING)]
            style = {"color": colour, "ls": "-" if base != label or base not in MATCHING else ":"}
            for index, cell in enumerate(group):
                name = label if index == 0 else None
                axis.plot(cell["seconds"], cell["nll"], lw=1.2, label=name, **style)
        for axis, title in zip(axes, ("likelihood, recipe, paper", "score matching"), strict=True):
            axis.axhline(gaussian, color=BASELINE, ls="--", lw=1, label="Gaussian")
            axis.set_xscale("log")
            axis.set_xlim(left=1)
            axis.set_xlabel("training time (s)")
            axis.set_title(title)
            axis.legend(fontsize=7)
        low = min(np.nanmin(cell["nll"]) for cell in cells)
        axes[0].set_ylim(low - 10, gaussian + 150)
        axes[0].set_ylabel("validation NLL (nats)")
        return figure
