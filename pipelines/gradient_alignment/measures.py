"""What is measured of a classifier: alignment, perturbation, density ratios, ascended pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.integrate import trapezoid

from ebflow.alignment import fooling, metrics
from ebflow.alignment.ascent import maximise
from ebflow.alignment.logit import Classifier, ClassLogit, accuracy
from ebflow.alignment.perturbation import (
    accuracies,
    density_ratio,
    deviation,
    magnitude,
    saliency,
)
from ebflow.alignment.reference import Normalised, Reference, Scores
from ebflow.alignment.robustness import off_manifold, principal
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.objectives import ESTIMATORS, draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import uniform
from pipelines.gradient_alignment.config import MeasureConfig, ShiftConfig
from pipelines.gradient_alignment.known import POINTS, known
from pipelines.gradient_alignment.references import Points

FRACTIONS = np.geomspace(0.01, 1, 25)
"""Of pixels that are filled in, as in the paper's code."""

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Deviations of the noise of density ratios."""

ESTIMATED = 100
"""Points at which the trace estimators are measured, and estimates at each."""

SHOWN = 8
WIDEST = 256
"""Dimensions up to which a trace is taken exactly by as many backward passes."""

Found = dict[str, float | np.ndarray]
"""Numbers, and arrays for figures."""


@dataclass(frozen=True)
class Subject:
    """A classifier to be measured, and what it is measured with.

    Attributes:
        network: The classifier.
        baseline: The one without a regulariser, of the same seed.
        judge: One of another architecture that was trained independently.
        shape: The shape of an example.
        points: Test points.
        scores: The reference's there.
        reference: The reference.
        blind: Class-blind densities by name.
        randomised: The classifier with parameters drawn anew, some draws of each kind.
    """

    network: Classifier
    baseline: Classifier
    judge: Classifier
    shape: Sequence[int]
    points: Points
    scores: Scores
    reference: Reference
    blind: Mapping[str, Normalised]
    randomised: Mapping[str, Sequence[Classifier]]


@products("highest")
def measure(config: MeasureConfig, subject: Subject) -> Found:
    """Returns all numbers and arrays of a classifier, shifted as configured.

    Raises:
        NonFinite: If a gradient is not finite.
    """
    whole = _shifted(config.shift, subject)
    parts: list[Callable[[MeasureConfig, Subject], Found]] = [
        _alignment, _known, _robustness, _perturbation, _ratios, _ascent, _pictures, _changes,
    ]  # fmt: skip
    if config.estimators:
        parts.append(_estimators)
    return {name: value for part in parts for name, value in part(config, whole).items()}


def _shifted(shift: ShiftConfig, subject: Subject) -> Subject:
    """Returns it with a shift on its logits, whatever the parameters behind these are."""
    if shift.name == "none":
        return subject
    pattern = fooling.stripes(subject.shape)
    if shift.name in subject.blind:
        change = partial(fooling.shifted, shift=subject.blind[shift.name].log_prob)
    elif shift.name == "ripple":
        change = partial(fooling.ripple, pattern=pattern, size=shift.size)
    else:
        change = partial(fooling.shifted, shift=fooling.SHIFTS[shift.name](pattern, shift.size))
    anew = {kind: [change(one) for one in found] for kind, found in subject.randomised.items()}
    return replace(subject, network=change(subject.network), randomised=anew)


def _alignment(config: MeasureConfig, subject: Subject) -> Found:
    points, scores = subject.points, subject.scores
    found = metrics.gradients(subject.network, points.noisy, points.labels)
    if not found.own.isfinite().all():
        raise NonFinite("gradient: found one that is not finite, expected finite logits")
    other = metrics.shuffled(scores, points.labels, _draws(config, "shuffle"))
    control = metrics.alignments(found, *other)
    cosines = metrics.alignments(found, scores) | {f"{k}/shuffled": v for k, v in control.items()}
    noise_cosine, residual = metrics.dsm(found.own, points.noise, points.sigma)
    numbers: Found = {name: float(values.mean()) for name, values in cosines.items()}
    numbers |= {
        "accuracy": accuracy(subject.network, points.clean, points.labels),
        "accuracy/noisy": accuracy(subject.network, points.noisy, points.labels),
        "gradient": float(found.own.norm(dim=1).mean()),
        "gradient/squared": float(found.own.square().sum(1).mean()),
        "trace": _trace(config, subject),
        "DSM-cos": float(noise_cosine.mean()),
        "DSM residual": residual.value,
    }
    if scores.classes is not None:
        numbers |= metrics.fisher_ratios(found, scores.classes)
        own = metrics.of_label(scores.classes, points.labels)
        numbers["A1/centred"] = float(metrics.cosine(found.centred, own).mean())
    return numbers


def _known(config: MeasureConfig, subject: Subject) -> Found:
    """Known metrics of the logit-gradient as an attribution, at points of the alignment."""
    x, labels = subject.points.noisy[:POINTS], subject.points.labels[:POINTS]
    return known(
        subject.network, x, labels, subject.shape, sigma=config.noise,
        randomised=subject.randomised, draws=partial(_draws, config),
    )  # fmt: skip


def _robustness(config: MeasureConfig, subject: Subject) -> Found:
    """Of clean images, on and off the principal directions of all rows, if any is off them."""
    x, gaussian = subject.points.clean, subject.blind["gaussian"]
    noise = config.noise**2 * torch.eye(x.shape[1], device=x.device)
    directions = principal(gaussian.covariances[0] - noise)
    if directions.shape[1] == x.shape[1]:
        return {}
    size, draws = config.noise * x.shape[1] ** 0.5, _draws(config, "manifold")
    return {"off-manifold": off_manifold(subject.network, x, directions, size, draws)}


def _draws(config: MeasureConfig, *path: str | int) -> torch.Generator:
    return derive(config.seed, *path, device=config.device)


def _trace(config: MeasureConfig, subject: Subject) -> float:
    """Returns the mean trace; by eight directions where exact traces cost too much."""
    density, x = ClassLogit(subject.network, subject.points.labels), subject.points.noisy
    if x.shape[1] <= WIDEST:
        return float(density.score_and_laplacian(x)[1].detach().mean())
    u = draw_directions("rademacher", 8, x, _draws(config, "trace"))
    return float(taylor_cv(density, x, u, 0.03)[1].detach().mean())


def _perturbation(config: MeasureConfig, subject: Subject) -> Found:
    """Of clean images, by own gradients and by controls, as the classifier itself sees them, the
    baseline, and the judge; of images in colour by the deviation over colours too.
    """
    points, shape = subject.points, subject.shape
    gradients = metrics.gradients(subject.network, points.clean, points.labels)
    pixels = saliency(points.clean, shape)
    saliencies = {
        "raw": saliency(gradients.own, shape),
        "centred": saliency(gradients.centred, shape),
        "magnitude": magnitude(points.clean, shape),
        "random": uniform(pixels.shape, pixels, _draws(config, "random saliency")),
    }
    if pixels.shape != points.clean.shape:
        saliencies["deviation"] = deviation(gradients.own, shape)
    judges = {"own": subject.network, "base": subject.baseline, "other": subject.judge}
    found: Found = {}
    for judge, network in judges.items():
        for name, salience in saliencies.items():
            curve = accuracies(network, points.clean, points.labels, salience, FRACTIONS)
            area = float(trapezoid(curve, FRACTIONS))
            found[f"PP/{judge}/{name}"] = area / float(np.ptp(FRACTIONS))
    return found


def _ratios(config: MeasureConfig, subject: Subject) -> Found:
    """Logarithms of mean density ratios, and means of their logarithms."""
    points, numbers = subject.points, {}
    for index, sigma in enumerate(SIGMAS):
        draws = _draws(config, "ratio", index)
        mean, log = density_ratio(subject.network, points.clean, points.labels, sigma, draws)
        numbers[f"log mean ratio/{sigma:g}"] = float(mean)
        numbers[f"mean log ratio/{sigma:g}"] = float(log.value)
    return numbers


def _ascent(config: MeasureConfig, subject: Subject) -> Found:
    """The GAN-test of ascended pictures, and their log-density under the reference."""
    labels = subject.points.labels[: config.samples]
    width = subject.points.clean.shape[1]
    pictures = maximise(
        subject.network, labels, width=width, generator=_draws(config, "ascent"),
        steps=config.ascent, rate=config.rate,
    )  # fmt: skip
    log_probs = subject.reference.at(pictures).log_probs
    own = labels if subject.reference.conditional else torch.zeros_like(labels)
    dense = log_probs.gather(1, own.unsqueeze(1)).squeeze(1) / width
    return {
        "GAN-test": accuracy(subject.judge, pictures, labels),
        "samples/log density": float(dense.mean()),
        "samples": pictures[: SHOWN**2].cpu().numpy(),
    }


def _pictures(config: MeasureConfig, subject: Subject) -> Found:
    """Gradients at the first test image of each class."""
    points = subject.points
    firsts = [int((points.labels == k).nonzero()[0]) for k in points.labels.unique()[:SHOWN]]
    x = points.clean[firsts]
    found = metrics.gradients(subject.network, x, points.labels[firsts])
    arrays = {"images": x, "gradients": found.own, "centred": found.centred}
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _changes(config: MeasureConfig, subject: Subject) -> Found:
    """What is other than in the baseline."""
    points = subject.points
    found = fooling.invariants(subject.baseline, subject.network, points.noisy, points.labels)
    return {f"change/{name}": value for name, value in asdict(found).items()}


def _estimators(config: MeasureConfig, subject: Subject) -> Found:
    """The deviation at a point of the one-sided trace estimator, without over with the control
    variate, at σ = 0.01.
    """
    x, labels = subject.points.noisy[:ESTIMATED], subject.points.labels[:ESTIMATED]
    density = ClassLogit(subject.network, labels)
    u = draw_directions("gaussian", ESTIMATED, x, _draws(config, "estimators", "gaussian"))
    noisy, quiet = (
        float(ESTIMATORS[name](density, x, u, 0.01)[1].detach().var(0).mean().sqrt())
        for name in ("taylor", "taylor_cv")
    )
    return {"estimators/noise": noisy / quiet}
