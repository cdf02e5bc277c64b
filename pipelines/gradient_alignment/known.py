"""What known metrics say of the true class's logit-gradient as an attribution, by its network.

Infidelity and sensitivity are captum's, with the draws of the study. The others are those of
``ebflow.alignment.attribution``.

Source: On the (In)fidelity and Sensitivity of Explanations (Yeh et al., 2019), arXiv:1901.09392.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from ebflow.alignment.attribution import imputed, irof, patches, rank_correlation
from ebflow.alignment.logit import Classifier, ClassLogit
from ebflow.alignment.perturbation import accuracies, saliency
from ebflow.randomness import normal, uniform

POINTS = 300
"""Test points at most."""

SAMPLES = 10
"""Perturbations of each, as captum's default."""

FRACTIONS = np.linspace(0.1, 0.9, 9)
"""Of pixels that ROAD fills in."""

Draws = Callable[[str], torch.Generator]
"""From a purpose to its generator, at its start."""


def known(
    network: Classifier,
    x: Tensor,
    labels: Tensor,
    shape: Sequence[int],
    *,
    sigma: float,
    randomised: Mapping[str, Sequence[Classifier]],
    draws: Draws,
) -> dict[str, float]:
    """Returns the metrics by name; those that fill pixels in of images alone.

    Arguments:
        network: The classifier.
        x: Points with shape (B, D).
        labels: Their classes.
        shape: The shape of an example.
        sigma: Deviation of the noise of infidelity.
        randomised: The network with parameters drawn anew, some draws of each kind.
        draws: Where random numbers come from.
    """
    gradient = _gradient(network, x, labels)
    numbers = _infidelity(network, x, labels, gradient, sigma, draws)
    numbers["sensitivity"] = _sensitivity(network, x, labels, draws)
    for kind, networks in randomised.items():
        others = [_gradient(other, x, labels) for other in networks]
        alike = [rank_correlation(gradient.abs(), other.abs()).mean() for other in others]
        numbers[f"randomised/{kind}"] = float(torch.stack(alike).mean())
    if len(shape) in (2, 3):
        numbers |= _filling(network, x, labels, saliency(gradient, shape), shape, draws)
    return numbers


def _gradient(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    """Returns ∇f_y with shape (B, D)."""
    return ClassLogit(network, labels).score(x).detach()


def _infidelity(
    network: Classifier, x: Tensor, labels: Tensor, gradient: Tensor, sigma: float, draws: Draws
) -> dict[str, float]:
    """Returns the mean squared error of u · ∇f_y, and its part of the mean squared change of f_y.

    The change is from x − u to x. It is the infidelity of an attribution of 0.
    """

    def perturbed(generator: torch.Generator, inputs: Tensor) -> tuple[Tensor, Tensor]:
        u = sigma * normal(inputs.shape, inputs, generator)
        return u, inputs - u

    own, whole = (
        infidelity(
            network, partial(perturbed, draws("infidelity")), x, attributions, target=labels,
            n_perturb_samples=SAMPLES,
        ).mean()
        for attributions in (gradient, torch.zeros_like(gradient))
    )  # fmt: skip
    return {"infidelity": float(own), "infidelity/relative": float(own / whole)}


def _sensitivity(network: Classifier, x: Tensor, labels: Tensor, draws: Draws) -> float:
    """Returns the largest relative change of ∇f_y near a point, in the mean over points."""
    generator = draws("sensitivity")

    def perturbed(inputs: Tensor, radius: float) -> Tensor:
        return inputs + radius * (2 * uniform(inputs.shape, inputs, generator) - 1)

    def explained(inputs: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        (rows,) = (inputs,) if isinstance(inputs, Tensor) else inputs
        return (_gradient(network, rows, target),)

    found = sensitivity_max(explained, x, perturbed, n_perturb_samples=SAMPLES, target=labels)
    return float(found.mean())


def _filling(
    network: Classifier,
    x: Tensor,
    labels: Tensor,
    salience: Tensor,
    shape: Sequence[int],
    draws: Draws,
) -> dict[str, float]:
    """Returns ROAD, and IROF of the points that the classifier has right, NaN of none."""
    road = {}
    for name, order in (("most", -salience), ("least", salience)):
        fill = partial(imputed, shape=shape, generator=draws(f"ROAD {name}"))
        found = accuracies(network, x, labels, order, FRACTIONS, fill)
        road[f"ROAD/{name}"] = float(np.mean(found))
    right = network(x).argmax(1) == labels
    areas = irof(network, x[right], labels[right], salience[right], patches(shape))
    return road | {"IROF": float(areas.mean())}
