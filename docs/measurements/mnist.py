"""Test NLL of MNIST against the seconds of one core: a fit of each length.

    OMP_NUM_THREADS=1 python docs/measurements/mnist.py mnist.parquet --seconds 60 180 600

Rows are the official split; the last 10,000 training images choose the step. From half an hour
on, networks are wider and deeper. Adds each result to ``mnist.json``, does not measure it again,
prints a table, and draws ``docs/figures/mnist.png`` and ``mnist-samples.png``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import torch

import ebflow
from ebflow import Flow
from pipelines.reporting.style import panels, tiles

FIGURES = Path(__file__).parents[1] / "figures"
LONG, LARGE = 1800, {"hidden": 48, "depth": 12}  # Seconds from which on networks are larger
PUBLISHED = {"Glow": 571, "FFJORD": 538, "residual flow": 527}  # Nats of dequantized images
SHAPE = (1, 28, 28)


class Images(NamedTuple):
    """Images of 8 bits, with shape (N, 1, 28, 28)."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def images(path: Path) -> Images:
    """Returns 50,000 images to train on, 10,000 to choose by, and the official 10,000 to test."""
    table = pq.read_table(path)
    every = np.stack(table["image"].to_numpy(zero_copy_only=False)).astype(np.uint8)
    every = every.reshape(-1, *SHAPE)
    test = table["split"].to_numpy(zero_copy_only=False) == "test"
    return Images(every[~test][:50_000], every[~test][50_000:], every[test])


def measure(data: Images, seconds: float, seed: int) -> tuple[Flow, dict[str, float]]:
    """Returns a flow that was fitted for some seconds, and its NLL of the test images in nats."""
    options = LARGE if seconds >= LONG else None
    architecture = "pixelcnn" if options else None
    started = time.process_time()
    flow = ebflow.fit(data.train, validation=(data.validation,), max_seconds=seconds, seed=seed,
                      architecture=architecture, options=options)  # fmt: skip
    nll = -flow.log_prob(data.test).double()
    return flow, {
        "nll": float(nll.mean()),
        "error": float(nll.std()) / len(nll) ** 0.5,
        "steps": flow.report.steps,
        "epochs": flow.report.epochs,
        "cpu_seconds": time.process_time() - started,
        "parameters": sum(p.numel() for p in flow.core.parameters()),
    }


def draw(results: dict[str, dict[str, float]], figure: Path) -> None:
    """Draws test NLL against minutes, and published numbers as lines."""
    drawn, axis = panels(width=6, height=3.4)
    points = sorted((float(seconds) / 60, found["nll"]) for seconds, found in results.items())
    axis.plot(*zip(*points, strict=True), marker="o", label="ebflow, one core")
    for style, (name, nll) in zip(("--", "-.", ":"), PUBLISHED.items(), strict=True):
        axis.axhline(nll, linestyle=style, color="0.4")
        axis.annotate(name, (1, nll), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    axis.set(xscale="log", xlabel="minutes of one core", ylabel="test NLL (nats an image)")
    axis.set_xticks([p for p, _ in points], [f"{p:g}" for p, _ in points], minor=False)
    axis.minorticks_off()
    drawn.savefig(figure)


def show(real: np.ndarray, samples: np.ndarray, figure: Path) -> None:
    """Draws test images beside samples."""
    sides = [tiles(side.reshape(len(side), -1) / 255, SHAPE, 8) for side in (real, samples)]
    gap = np.full((len(sides[0]), 12), np.nan)
    whole = np.concatenate([sides[0], gap, sides[1]], 1)
    matplotlib.image.imsave(figure, whole.repeat(2, 0).repeat(2, 1), cmap="gray", vmin=0, vmax=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="MNIST as a Parquet file")
    parser.add_argument("--seconds", type=float, nargs="+", default=(60, 180, 600))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("mnist.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = images(chosen.source)
    results = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    for seconds in chosen.seconds:
        if (name := f"{seconds:g}") not in results:
            flow, results[name] = measure(data, seconds, chosen.seed)
            ebflow.save(flow, chosen.output.with_name(f"mnist-{name}"))
            chosen.output.write_text(json.dumps(results, indent=1))
            print(f"{name} s: {results[name]}", flush=True)
            samples = flow.sample((64,))
            show(data.test[:64], samples.numpy(), FIGURES / "mnist-samples.png")
    draw(results, FIGURES / "mnist.png")
