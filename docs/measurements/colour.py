"""Bits per dimension of 32×32 colour patches of two photographs, for flows of the same seconds.

    OMP_NUM_THREADS=1 python docs/measurements/colour.py --seconds 120

Takes seven times as long, with one thread. Patches for training, validation and testing lie in
separate strips of the photographs of scikit-learn. Couplings have two learning rates, of which
validation chooses one. Adds each result to ``colour.json``, does not measure it again, and prints
a table.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ebflow
from ebflow import Flow
from ebflow.architectures import ARCHITECTURES, glow
from ebflow.bijections import Convolution
from pipelines.data.named import PATCHES, natural_patches

SIZE = 32
RATES = (1e-3, 4e-3)  # Learning rates of Glow and RealNVP
COUPLINGS = {
    "options": {"levels": 3, "depth": 6, "hidden": 64},
    "normalize": "standardize",
    "batch_size": 32,
}
FLOWS: dict[str, dict[str, Any]] = {
    "Glow, the default": {"architecture": "glow", **COUPLINGS},
    "pixel by pixel": {"architecture": "pixelcnn"},
    "one dense layer": {"normalize": "whiten"},
    "convolutions with couplings": {"architecture": "convolutional", "batch_size": 100},
    "RealNVP": {"architecture": "realnvp", **COUPLINGS},
}


def realnvp(
    shape: Sequence[int],
    *,
    levels: int,
    depth: int,
    hidden: int,
    **options: Any,  # noqa: ANN401
) -> Flow:
    """Creates Glow with fixed rotations of the channels instead of trained convolutions.

    RealNVP itself alternates masks of channels and of a checkerboard, without rotations.
    """
    flow = glow(shape, levels=levels, depth=depth, hidden=hidden, **options)
    for layer in flow.modules():
        if isinstance(layer, Convolution):
            layer.requires_grad_(False)
    return flow


def measure(seconds: float, seed: int, **options: Any) -> dict[str, float]:  # noqa: ANN401
    """Returns the bits per dimension of a flow that was fitted for some seconds."""
    train, validation, test = np.split(natural_patches(SIZE), np.cumsum(PATCHES[:2]))
    started = time.process_time()
    flow = ebflow.fit(train, validation=(validation,), max_seconds=seconds, seed=seed, **options)
    cpu_seconds = time.process_time() - started
    bits = -flow.log_prob(test).double() / (math.prod(test.shape[1:]) * math.log(2))
    return {
        "bits": float(bits.mean()),
        "error": float(bits.std()) / len(bits) ** 0.5,
        "validation": flow.report.nll,
        "steps": flow.report.steps,
        "cpu_seconds": cpu_seconds,
        "parameters": sum(p.numel() for p in flow.core.parameters()),
    }


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields the name of each flow, that of its settings, and the settings."""
    for flow, options in FLOWS.items():
        rates = RATES if "options" in options else (None,)
        for rate in rates:
            yield flow, f"{flow}, rate {rate}" if rate else flow, {**options, "lr": rate}


def best(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields each flow and its result with the lowest validation NLL."""
    for flow in FLOWS:
        found = [results[name] for of, name, _ in settings() if of == flow and name in results]
        if found:
            yield flow, min(found, key=lambda result: result["validation"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("colour.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ARCHITECTURES["realnvp"] = realnvp
    results = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    for _, name, options in settings():
        if name not in results:
            results[name] = measure(chosen.seconds, chosen.seed, **options)
            chosen.output.write_text(json.dumps(results, indent=1))
            print(f"{name}: {results[name]}", flush=True)
    for flow, result in best(results):
        print(f"| {flow} | {result['parameters']:,} | {result['steps']:,} | "
              f"{result['bits']:.3f} ± {result['error']:.3f} |")  # fmt: skip
