"""Attributions of a true class's logit to pixels, by captum."""

import warnings

from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import Tensor

from ebflow.alignment.logit import Classifier

STEPS = 50


def attributions(network: Classifier, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns attributions of f_y at points with shape (B, D), by name, each of that shape.

    Integrated gradients are from the image of the mean pixel, by 50 steps.
    """
    mean = x.mean(1, keepdim=True).expand_as(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        found = {
            "saliency": Saliency(network).attribute(x.clone(), labels, abs=False),
            "input × gradient": InputXGradient(network).attribute(x.clone(), labels),
            "integrated gradients": IntegratedGradients(network).attribute(
                x.clone(), mean, labels, n_steps=STEPS
            ),
        }
    return {name: values.detach() for name, values in found.items()}
