"""Attributions of a true class's logit to pixels, by captum."""

import warnings
from collections.abc import Callable

from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import Tensor

from ebflow.alignment.logit import Classifier

STEPS = 50


def _saliency(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    return Saliency(network).attribute(x, labels, abs=False)


def _input_times_gradient(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    return InputXGradient(network).attribute(x, labels)


def _integrated(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    mean = x.detach().mean(1, keepdim=True).expand_as(x)
    return IntegratedGradients(network).attribute(x, mean, labels, n_steps=STEPS)


ATTRIBUTIONS: dict[str, Callable[[Classifier, Tensor, Tensor], Tensor]] = {
    "saliency": _saliency,
    "input × gradient": _input_times_gradient,
    "integrated gradients": _integrated,
}
"""Attributions by name; integrated gradients from the image of the mean pixel, 50 steps."""


def attributions(network: Classifier, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns the attributions of f_y at points with shape (B, D), each of that shape."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        found = {
            name: attribute(network, x.clone().requires_grad_(), labels)
            for name, attribute in ATTRIBUTIONS.items()
        }
    return {name: values.detach() for name, values in found.items()}
