"""Metrics of the literature, of the true class's logit-gradient as an attribution.

Infidelity and sensitivity are captum's, with the draws of the study. The others are those of
``ebflow.alignment.attribution``.

Source: On the (In)fidelity and Sensitivity of Explanations (Yeh et al., 2019), arXiv:1901.09392.
"""

from functools import partial

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from ebflow.alignment.attribution import imputed, irof, patches, rank_correlation
from ebflow.alignment.logit import Classifier, ClassLogit
from ebflow.alignment.perturbation import accuracies, saliency
from ebflow.randomness import normal, uniform
from pipelines.gradient_alignment.references import Found, Subject

POINTS = 300
"""Test points at most."""

SAMPLES = 10
"""Perturbations of each, as captum's default."""

FRACTIONS = np.linspace(0.1, 0.9, 9)
"""Of pixels that ROAD fills in."""


def attribution_metrics(subject: Subject) -> Found:
    """Returns the metrics by name, at points of the alignment; ROAD and IROF of images alone."""
    x, labels = subject.points.noisy[:POINTS], subject.points.labels[:POINTS]
    gradient = _gradient(subject.network, x, labels)
    numbers = _infidelity(subject, x, labels, gradient)
    numbers["sensitivity"] = _sensitivity(subject, x, labels)
    for kind, networks in subject.randomized.items():
        others = [_gradient(other, x, labels) for other in networks]
        alike = [rank_correlation(gradient.abs(), other.abs()).mean() for other in others]
        numbers[f"randomized/{kind}"] = float(torch.stack(alike).mean())
    if len(subject.shape) in (2, 3):
        numbers |= _filling(subject, x, labels, saliency(gradient, subject.shape))
    return numbers


def _gradient(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    """Returns ∇f_y with shape (B, D)."""
    return ClassLogit(network, labels).score(x).detach()


def _infidelity(subject: Subject, x: Tensor, labels: Tensor, gradient: Tensor) -> Found:
    """Returns the mean squared error of u · ∇f_y, and its part of the mean squared change of f_y.

    The change is from x − u to x. It is the infidelity of an attribution of 0.
    """

    def perturbed(generator: torch.Generator, inputs: Tensor) -> tuple[Tensor, Tensor]:
        u = subject.config.noise * normal(inputs.shape, inputs, generator)
        return u, inputs - u

    own, whole = (
        infidelity(
            subject.network, partial(perturbed, subject.draws("infidelity")), x, attributions,
            target=labels, n_perturb_samples=SAMPLES,
        ).mean()
        for attributions in (gradient, torch.zeros_like(gradient))
    )  # fmt: skip
    return {"infidelity": float(own), "infidelity/relative": float(own / whole)}


def _sensitivity(subject: Subject, x: Tensor, labels: Tensor) -> float:
    """Returns the largest relative change of ∇f_y near a point, in the mean over points."""
    generator = subject.draws("sensitivity")

    def perturbed(inputs: Tensor, radius: float) -> Tensor:
        return inputs + radius * (2 * uniform(inputs.shape, inputs, generator) - 1)

    def explained(inputs: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        (rows,) = (inputs,) if isinstance(inputs, Tensor) else inputs
        return (_gradient(subject.network, rows, target),)

    found = sensitivity_max(explained, x, perturbed, n_perturb_samples=SAMPLES, target=labels)
    return float(found.mean())


def _filling(subject: Subject, x: Tensor, labels: Tensor, salience: Tensor) -> Found:
    """Returns ROAD, and IROF of the points that the classifier has right, NaN of none."""
    network, shape, road = subject.network, subject.shape, {}
    for name, order in (("most", -salience), ("least", salience)):
        fill = partial(imputed, shape=shape, generator=subject.draws(f"ROAD {name}"))
        found = accuracies(network, x, labels, order, FRACTIONS, fill)
        road[f"ROAD/{name}"] = float(np.mean(found))
    right = network(x).argmax(1) == labels
    areas = irof(network, x[right], labels[right], salience[right], patches(shape))
    return road | {"IROF": float(areas.mean())}
