"""Measures a trained classifier: alignment, robustness to perturbation, and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import trapezoid

from ebflow.alignment import explanations, fooling, metrics
from ebflow.alignment.logit import Classifier, ClassLogit, accuracy
from ebflow.alignment.reference import Normalized, Reference, Scores
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.objectives import draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import classifiers
from pipelines.gradient_alignment.config import SIGMAS, MeasureConfig
from pipelines.gradient_alignment.reference import (
    Points,
    of_split,
    open_blind,
    open_reference,
    own_log_probs,
)
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

FRACTIONS = np.geomspace(0.01, 1, 25)
"""Fractions of pixels that are replaced, as in the paper's code."""

PATTERN = 100.0
"""The length of the gradient of a pattern on every logit."""

PICTURES, CLASSES = 64, 8
"""The most ascended pictures, and classes with an image and its gradients, that are saved."""

WIDEST = 256
"""The most dimensions with an exact trace, which takes as many backward passes."""

Results = dict[str, float | np.ndarray]
"""Numbers, and arrays for figures, by name."""


@dataclass(frozen=True)
class Subject:
    """A classifier and what it is compared with.

    Attributes:
        config: The configuration of the measurement.
        network: The classifier.
        baseline: The classifier without a regularizer, of the same seed.
        judge: An independently trained classifier of another architecture.
        shape: The shape of an example.
        points: Test points.
        scores: The scores of the reference there.
        reference: The reference.
        blind: The class-blind densities by name.
    """

    config: MeasureConfig
    network: Classifier
    baseline: Classifier
    judge: Classifier
    shape: Sequence[int]
    points: Points
    scores: Scores
    reference: Reference
    blind: Mapping[str, Normalized]

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Returns the source of random numbers for a purpose."""
        return derive(self.config.seed, *purpose)


def measure(
    config: MeasureConfig,
    data: Path,
    flows: Sequence[Path],
    all_rows: Path,
    trained: Sequence[Path],
    *,
    run: StageRun,
) -> None:
    """Writes ``numbers.json`` and ``arrays.npz``, without numbers if the training diverged.

    Arguments:
        config: The configuration.
        data: The prepared data.
        flows: The trained flows of the reference.
        all_rows: The trained flow of all rows.
        trained: The classifier, the baseline of its seed, and the judge.
    """
    dataset = run.open(config, Dataset(data), "testing")
    outcome = json.loads((trained[0] / classifiers.OUTCOME).read_text())
    results: Results = {}
    if not outcome["diagnosis"].startswith(classifiers.DIVERGED):
        shape, classes = dataset.manifest.shape, dataset.manifest.classes
        networks = [classifiers.load(folder, shape, classes) for folder in trained]
        points, reference = of_split(config, dataset, "test"), open_reference(flows, dataset)
        blind = open_blind(all_rows, dataset, config.noise)
        scores = reference.at(points.noisy)
        subject = Subject(config, *networks, shape, points, scores, reference, blind)
        results = measured(subject) | {"trace/training": outcome["trace"]}
    arrays = {name: one for name, one in results.items() if isinstance(one, np.ndarray)}
    numbers = {name: one for name, one in results.items() if name not in arrays}
    write_json(
        run.output / "numbers.json", {"numbers": numbers, "diagnosis": outcome["diagnosis"]}
    )
    np.savez(run.output / "arrays.npz", **arrays)
    run.log_metrics({name.replace(" ", "_"): value for name, value in numbers.items()})


@products("highest")
def measured(subject: Subject) -> Results:
    """Returns all numbers and arrays of a classifier, shifted as configured.

    Raises:
        NonFinite: If a gradient is not finite.
    """
    shifted = _shifted(subject)
    parts = (_alignment, _robustness, _perturbation, _ratios, _ascent, _pictures, _changes)
    return {name: value for part in parts for name, value in part(shifted).items()}


def _shifted(subject: Subject) -> Subject:
    """Returns the subject with the shift on the logits of its network."""
    name = subject.config.shift
    if name == "none":
        return subject
    pattern = fooling.linear(fooling.stripes(subject.shape), PATTERN)
    shift = pattern if name == "pattern" else subject.blind[name].log_prob
    return replace(subject, network=fooling.shifted(subject.network, shift))


def _alignment(subject: Subject) -> Results:
    points, scores = subject.points, subject.scores
    gradients = metrics.gradients(subject.network, points.noisy, points.labels)
    if not gradients.own.isfinite().all():
        raise NonFinite("gradient: found one that is not finite, expected finite logits")
    others = metrics.another_point(scores.marginal, subject.generator("shuffle"))
    control = metrics.alignments(gradients, scores, others)
    cosines = metrics.alignments(gradients, scores)
    cosines |= {f"{name}/shuffled": values for name, values in control.items()}
    noise_cosine, residual = metrics.dsm(gradients.own, points.noise, points.sigma)
    numbers: Results = {name: float(values.mean()) for name, values in cosines.items()}
    numbers |= {
        "accuracy": accuracy(subject.network, points.clean, points.labels),
        "accuracy/noisy": accuracy(subject.network, points.noisy, points.labels),
        "gradient": float(gradients.own.norm(dim=1).mean()),
        "trace": _trace(subject),
        "DSM-cos": float(noise_cosine.mean()),
        "DSM residual": residual.value,
    }
    if scores.classes is not None:
        numbers |= metrics.fisher_ratios(gradients, scores.classes)
        own = metrics.of_label(scores.classes, points.labels)
        numbers["A1/centred"] = float(torch.cosine_similarity(gradients.centred, own).mean())
    return numbers


def _trace(subject: Subject) -> float:
    """Returns the mean trace; from eight directions if the exact trace is too expensive."""
    density, x = ClassLogit(subject.network, subject.points.labels), subject.points.noisy
    if x.shape[1] <= WIDEST:
        return float(density.score_and_laplacian(x)[1].detach().mean())
    u = draw_directions("rademacher", 8, x, subject.generator("trace"))
    return float(taylor_cv(density, x, u, 0.03)[1].detach().mean())


def _robustness(subject: Subject) -> Results:
    """Returns the robustness of clean images; nothing if every direction is on the manifold."""
    x, noise, gaussian = subject.points.clean, subject.config.noise, subject.blind["gaussian"]
    width = x.shape[1]
    of_noise = noise**2 * torch.eye(width)
    directions = explanations.principal(gaussian.covariances[0] - of_noise)
    if directions.shape[1] == width:
        return {}
    generator = subject.generator("manifold")
    size = noise * width**0.5
    ratio = explanations.off_manifold(subject.network, x, directions, size, generator)
    return {"off-manifold": ratio}


def _perturbation(subject: Subject) -> Results:
    """Returns mean accuracies of each judge on perturbed clean images, by each saliency."""
    x, labels, shape = subject.points.clean, subject.points.labels, subject.shape
    gradients = metrics.gradients(subject.network, x, labels)
    numbers: Results = {}
    for judge, network in {"own": subject.network, "other": subject.judge}.items():
        for name, values in {"raw": gradients.own, "centred": gradients.centred}.items():
            salience = explanations.saliency(values, shape)
            curve = explanations.perturbed_accuracies(network, x, labels, salience, FRACTIONS)
            area = float(trapezoid(curve, FRACTIONS))
            numbers[f"PP/{judge}/{name}"] = area / float(np.ptp(FRACTIONS))
    return numbers


def _ratios(subject: Subject) -> Results:
    """Returns the logarithm of the mean density ratio, and the mean of its logarithm."""
    x, labels, numbers = subject.points.clean, subject.points.labels, {}
    for index, sigma in enumerate(SIGMAS):
        generator = subject.generator("ratio", index)
        mean, log = explanations.density_ratio(subject.network, x, labels, sigma, generator)
        numbers[f"log mean ratio/{sigma:g}"] = float(mean)
        numbers[f"mean log ratio/{sigma:g}"] = float(log.value)
    return numbers


def _ascent(subject: Subject) -> Results:
    """Returns ascended pictures, the judge's accuracy on them, and their log-density."""
    config = subject.config
    labels = subject.points.labels[: config.samples]
    width = subject.points.clean.shape[1]
    pictures = explanations.maximize(
        subject.network, labels, width=width, generator=subject.generator("ascent"),
        steps=config.ascent, rate=config.rate,
    )  # fmt: skip
    log_density = own_log_probs(subject.reference.at(pictures), labels) / width
    return {
        "GAN-test": accuracy(subject.judge, pictures, labels),
        "samples/log density": float(log_density.mean()),
        "samples": pictures[:PICTURES].numpy(),
    }


def _pictures(subject: Subject) -> Results:
    """Returns the first test image of each class and the gradients there."""
    points = subject.points
    firsts = [int((points.labels == k).nonzero()[0]) for k in points.labels.unique()[:CLASSES]]
    x = points.clean[firsts]
    gradients = metrics.gradients(subject.network, x, points.labels[firsts])
    arrays = {"images": x, "gradients": gradients.own, "centred": gradients.centred}
    return {name: values.numpy() for name, values in arrays.items()}


def _changes(subject: Subject) -> Results:
    """Returns the differences from the baseline."""
    x, labels = subject.points.noisy, subject.points.labels
    changes = fooling.invariants(subject.baseline, subject.network, x, labels)
    return {f"change/{name}": value for name, value in changes.items()}
