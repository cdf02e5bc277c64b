"""The classifier that a flow given classes makes, beside those of its baselines."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ebflow.data.loader import Dataset
from ebflow.flow import Flow
from pipelines.density.classification import Bins, Classification, log_posteriors
from pipelines.reporting.style import panels

FILE = "posteriors.npz"
"""File of log p(k | x) and the classes of test rows, of a flow given classes alone."""

PREFIXES = {"flow": "test/", "gaussian": "baseline/gaussian_", "mixture": "baseline/mixture_"}
"""Of metrics, by the density."""


def measured(
    densities: Mapping[str, Flow], dataset: Dataset, file: Path, options: Mapping[str, Any]
) -> dict[str, float]:
    """Returns the metrics of each density's classifier on the test split; writes the flow's file.

    Nothing where classes are not the only context.

    Arguments:
        densities: The flow and its baselines, by name.
        dataset: The prepared data.
        file: Where the flow's log-posteriors go.
        options: Of ``log_probs``.
    """
    given = dataset.manifest.context
    if given is None or given.label is None or len(given.names) > 1:
        return {}
    test, shares, metrics = dataset.split("test"), torch.tensor(given.mean), {}
    labels = test.labels()
    for name, density in densities.items():
        found = log_posteriors(density, test, shares, **options)
        numbers = asdict(Classification.of(found, labels))
        metrics |= {f"{PREFIXES[name]}{key}": value for key, value in numbers.items()}
        if name == "flow":
            np.savez(file, log_posteriors=found.numpy(), labels=labels.numpy())
    return metrics


def figures(file: Path) -> dict[str, Figure]:
    """Returns the shares of right answers over confidence, beside the rows of each confidence.

    By name; none where there is no such file.
    """
    if not file.exists():
        return {}
    with np.load(file) as found:
        posteriors, labels = (torch.from_numpy(found[k]) for k in ("log_posteriors", "labels"))
    bins = Bins.of(posteriors, labels)
    figure, (left, right) = panels(2)
    error = (bins.right * (1 - bins.right) / bins.count).sqrt()
    left.plot([0, 1], [0, 1], color="black", lw=0.8, label="calibrated")
    left.errorbar(bins.confidence, bins.right, error, marker="o", capsize=3, label="flow")
    left.set(xlabel="probability of the likeliest class", ylabel="share right", ylim=(-0.05, 1.05))
    left.legend()
    right.bar(bins.confidence, bins.count, 0.06)
    right.set(xlabel="probability of the likeliest class", ylabel="test rows", yscale="log")
    return {"classes": figure}
