"""What is measured of a classifier: alignment, perturbation, density ratios, ascended pictures."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.integrate import trapezoid

from ebflow.alignment import fooling, metrics
from ebflow.alignment.logit import ClassLogit, accuracy
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.objectives import ESTIMATORS, draw_directions, taylor_cv
from ebflow.randomness import uniform
from pipelines.gradient_alignment import perturbation
from pipelines.gradient_alignment.ascent import maximize
from pipelines.gradient_alignment.attribution_metrics import attribution_metrics
from pipelines.gradient_alignment.references import Found, Subject, own_log_probs
from pipelines.gradient_alignment.robustness import off_manifold, principal

FRACTIONS = np.geomspace(0.01, 1, 25)
"""Of pixels that are filled in, as in the paper's code."""

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Deviations of the noise of density ratios."""

ESTIMATED = 100
"""Points at which the trace estimators are measured, and estimates at each."""

SHOWN = 8
WIDEST = 256
"""Dimensions up to which a trace is taken exactly by as many backward passes."""


@products("highest")
def measure(subject: Subject) -> Found:
    """Returns all numbers and arrays of a classifier, shifted as configured.

    Raises:
        NonFinite: If a gradient is not finite.
    """
    whole = _shifted(subject)
    parts: list[Callable[[Subject], Found]] = [
        _alignment, attribution_metrics, _robustness, _perturbation, _ratios, _ascent, _pictures,
        _changes,
    ]  # fmt: skip
    if subject.config.estimators:
        parts.append(_estimators)
    return {name: value for part in parts for name, value in part(whole).items()}


def _shifted(subject: Subject) -> Subject:
    """Returns it with a shift on its logits, whatever the parameters behind these are."""
    shift = subject.config.shift
    if shift.name == "none":
        return subject
    pattern = fooling.stripes(subject.shape)
    if shift.name in subject.blind:
        change = partial(fooling.shifted, shift=subject.blind[shift.name].log_prob)
    elif shift.name == "ripple":
        change = partial(fooling.ripple, pattern=pattern, size=shift.size)
    else:
        change = partial(fooling.shifted, shift=fooling.SHIFTS[shift.name](pattern, shift.size))
    anew = {kind: [change(one) for one in found] for kind, found in subject.randomized.items()}
    return replace(subject, network=change(subject.network), randomized=anew)


def _alignment(subject: Subject) -> Found:
    points, scores = subject.points, subject.scores
    found = metrics.gradients(subject.network, points.noisy, points.labels)
    if not found.own.isfinite().all():
        raise NonFinite("gradient: found one that is not finite, expected finite logits")
    others = metrics.another_point(scores.marginal, subject.draws("shuffle"))
    control = metrics.alignments(found, scores, others)
    cosines = metrics.alignments(found, scores) | {f"{k}/shuffled": v for k, v in control.items()}
    noise_cosine, residual = metrics.dsm(found.own, points.noise, points.sigma)
    numbers: Found = {name: float(values.mean()) for name, values in cosines.items()}
    numbers |= {
        "accuracy": accuracy(subject.network, points.clean, points.labels),
        "accuracy/noisy": accuracy(subject.network, points.noisy, points.labels),
        "gradient": float(found.own.norm(dim=1).mean()),
        "gradient/squared": float(found.own.square().sum(1).mean()),
        "trace": _trace(subject),
        "DSM-cos": float(noise_cosine.mean()),
        "DSM residual": residual.value,
    }
    if scores.classes is not None:
        numbers |= metrics.fisher_ratios(found, scores.classes)
        own = metrics.of_label(scores.classes, points.labels)
        numbers["A1/centred"] = float(torch.cosine_similarity(found.centred, own).mean())
    return numbers


def _robustness(subject: Subject) -> Found:
    """Of clean images, on and off the principal directions of all rows, if any is off them."""
    x, noise, gaussian = subject.points.clean, subject.config.noise, subject.blind["gaussian"]
    width = x.shape[1]
    directions = principal(gaussian.covariances[0] - noise**2 * torch.eye(width, device=x.device))
    if directions.shape[1] == width:
        return {}
    size, draws = noise * width**0.5, subject.draws("manifold")
    return {"off-manifold": off_manifold(subject.network, x, directions, size, draws)}


def _trace(subject: Subject) -> float:
    """Returns the mean trace; by eight directions where exact traces cost too much."""
    density, x = ClassLogit(subject.network, subject.points.labels), subject.points.noisy
    if x.shape[1] <= WIDEST:
        return float(density.score_and_laplacian(x)[1].detach().mean())
    u = draw_directions("rademacher", 8, x, subject.draws("trace"))
    return float(taylor_cv(density, x, u, 0.03)[1].detach().mean())


def _perturbation(subject: Subject) -> Found:
    """Returns mean accuracies on perturbed clean images, by own gradients and by controls.

    The classifier itself, the baseline and the judge classify them.
    """
    x, labels, shape = subject.points.clean, subject.points.labels, subject.shape
    gradients = metrics.gradients(subject.network, x, labels)
    pixels = perturbation.saliency(x, shape)
    saliencies = {
        "raw": perturbation.saliency(gradients.own, shape),
        "centred": perturbation.saliency(gradients.centred, shape),
        "magnitude": perturbation.magnitude(x, shape),
        "random": uniform(pixels.shape, pixels, subject.draws("random saliency")),
    }
    judges = {"own": subject.network, "base": subject.baseline, "other": subject.judge}
    found: Found = {}
    for judge, network in judges.items():
        for name, salience in saliencies.items():
            curve = perturbation.accuracies(network, x, labels, salience, FRACTIONS)
            area = float(trapezoid(curve, FRACTIONS))
            found[f"PP/{judge}/{name}"] = area / float(np.ptp(FRACTIONS))
    return found


def _ratios(subject: Subject) -> Found:
    """Logarithms of mean density ratios, and means of their logarithms."""
    x, labels, numbers = subject.points.clean, subject.points.labels, {}
    for index, sigma in enumerate(SIGMAS):
        draws = subject.draws("ratio", index)
        mean, log = perturbation.density_ratio(subject.network, x, labels, sigma, draws)
        numbers[f"log mean ratio/{sigma:g}"] = float(mean)
        numbers[f"mean log ratio/{sigma:g}"] = float(log.value)
    return numbers


def _ascent(subject: Subject) -> Found:
    """The GAN-test of ascended pictures, and their log-density under the reference."""
    config = subject.config
    labels = subject.points.labels[: config.samples]
    width = subject.points.clean.shape[1]
    pictures = maximize(
        subject.network, labels, width=width, generator=subject.draws("ascent"),
        steps=config.ascent, rate=config.rate,
    )  # fmt: skip
    dense = own_log_probs(subject.reference.at(pictures), labels) / width
    return {
        "GAN-test": accuracy(subject.judge, pictures, labels),
        "samples/log density": float(dense.mean()),
        "samples": pictures[: SHOWN**2].cpu().numpy(),
    }


def _pictures(subject: Subject) -> Found:
    """Gradients at the first test image of each class."""
    points = subject.points
    firsts = [int((points.labels == k).nonzero()[0]) for k in points.labels.unique()[:SHOWN]]
    x = points.clean[firsts]
    found = metrics.gradients(subject.network, x, points.labels[firsts])
    arrays = {"images": x, "gradients": found.own, "centred": found.centred}
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _changes(subject: Subject) -> Found:
    """What is other than in the baseline."""
    points = subject.points
    found = fooling.invariants(subject.baseline, subject.network, points.noisy, points.labels)
    return {f"change/{name}": value for name, value in found.items()}


def _estimators(subject: Subject) -> Found:
    """The deviation at a point of the one-sided trace estimator, without over with the control
    variate, at σ = 0.01.
    """
    x, labels = subject.points.noisy[:ESTIMATED], subject.points.labels[:ESTIMATED]
    density = ClassLogit(subject.network, labels)
    u = draw_directions("gaussian", ESTIMATED, x, subject.draws("estimators", "gaussian"))
    noisy, quiet = (
        float(ESTIMATORS[name](density, x, u, 0.01)[1].detach().var(0).mean().sqrt())
        for name in ("taylor", "taylor_cv")
    )
    return {"estimators/noise": noisy / quiet}
