"""Metrics of the literature, of the true class's logit-gradient as an attribution.

Infidelity and sensitivity are captum's, with the study's generators. The randomization test is
the rank correlation with the attribution of a network with new random parameters, in all layers
or the last one. An attribution that does not change does not depend on the trained network.

Sources: On the (In)fidelity and Sensitivity of Explanations (Yeh et al., 2019), arXiv:1901.09392;
Sanity Checks for Saliency Maps (Adebayo et al., 2018), arXiv:1810.03292.
"""

import copy
from functools import partial

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from scipy.stats import spearmanr
from torch import Tensor, nn

from ebflow.alignment.logit import Classifier, ClassLogit
from ebflow.randomness import normal, uniform
from pipelines.gradient_alignment.references import Found, Subject

POINTS = 300
"""Test points at most."""

SAMPLES = 10
"""Perturbations of each, as captum's default."""


def attribution_metrics(subject: Subject) -> Found:
    """Returns the metrics by name, at points of the alignment."""
    x, labels = subject.points.noisy[:POINTS], subject.points.labels[:POINTS]
    gradient = _gradient(subject.network, x, labels)
    numbers = _infidelity(subject, x, labels, gradient)
    numbers["sensitivity"] = _sensitivity(subject, x, labels)
    for kind, networks in subject.randomized.items():
        others = [_gradient(other, x, labels) for other in networks]
        correlations = [rank_correlation(gradient.abs(), other.abs()) for other in others]
        numbers[f"randomized/{kind}"] = float(np.mean(correlations))
    return numbers


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Returns the mean of Spearman's rank correlation over rows with shape (B, D)."""
    pairs = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    return float(np.mean([spearmanr(*pair).statistic for pair in pairs]))


def with_last_of(network: nn.Module, other: nn.Module) -> nn.Module:
    """Returns a network with the parameters of its last layer from another of its architecture."""
    result, state = copy.deepcopy(network), other.state_dict()
    layer = [*state][-1].rpartition(".")[0]
    last = {name: value for name, value in state.items() if name.rpartition(".")[0] == layer}
    result.load_state_dict(result.state_dict() | last)
    return result


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
