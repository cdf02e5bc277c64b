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
from ebflow.objectives import DIFFERENCES, ESTIMATORS, draw_directions, taylor_cv, trace_variance
from ebflow.randomness import generator as derive
from ebflow.randomness import uniform
from pipelines.gradient_alignment.attributions import attributions
from pipelines.gradient_alignment.config import MeasureConfig, ShiftConfig
from pipelines.gradient_alignment.known import POINTS, known
from pipelines.gradient_alignment.references import Points

FRACTIONS = np.geomspace(0.01, 1, 25)
"""Of pixels that are filled in, as in the paper's code."""

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
STEPS = (0.001, 0.01, 0.1, 0.3)
"""Steps at which the trace estimators are measured."""

SHOWN = 8
WIDEST = 256
"""Dimensions up to which a trace is taken exactly by as many backward passes."""

Found = tuple[dict[str, float], dict[str, np.ndarray]]
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
    numbers: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    parts: list[Callable[[MeasureConfig, Subject], Found]] = [
        _classification, _alignment, _known, _robustness, _perturbation, _ratios, _ascent,
        _pictures, _changes,
    ]  # fmt: skip
    if config.estimators:
        parts.append(estimators)
    for part in parts:
        found, drawn = part(config, whole)
        numbers |= found
        arrays |= drawn
    return numbers, arrays


def _shifted(shift: ShiftConfig, subject: Subject) -> Subject:
    """Returns it with a shift on its logits, whatever the parameters behind these are."""
    if shift.name == "none":
        return subject
    change = _shift(shift, subject)
    anew = {kind: [change(one) for one in found] for kind, found in subject.randomised.items()}
    return replace(subject, network=change(subject.network), randomised=anew)


def _shift(shift: ShiftConfig, subject: Subject) -> Callable[[Classifier], Classifier]:
    pattern = fooling.stripes(subject.shape)
    if shift.name in subject.blind:
        return partial(fooling.shifted, shift=subject.blind[shift.name].log_prob)
    if shift.name == "ripple":
        return partial(fooling.ripple, pattern=pattern, size=shift.size)
    return partial(fooling.shifted, shift=fooling.SHIFTS[shift.name](pattern, shift.size))


def _classification(config: MeasureConfig, subject: Subject) -> Found:
    points = subject.points
    return {
        "accuracy": accuracy(subject.network, points.clean, points.labels),
        "accuracy/noisy": accuracy(subject.network, points.noisy, points.labels),
    }, {}


def _alignment(config: MeasureConfig, subject: Subject) -> Found:
    points, scores = subject.points, subject.scores
    found = metrics.gradients(subject.network, points.noisy, points.labels)
    if not found.own.isfinite().all():
        raise NonFinite("gradient: found one that is not finite, expected finite logits")
    cosines = metrics.alignments(found, scores)
    other = metrics.shuffled(scores, points.labels, _draws(config, "shuffle"))
    control = metrics.alignments(found, *other)
    noise_cosine, residual = metrics.dsm(found.own, points.noise, points.sigma)
    numbers = {name: float(values.mean()) for name, values in cosines.items()}
    numbers |= {f"{name}/shuffled": float(values.mean()) for name, values in control.items()}
    numbers |= {
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
    return numbers, {}


def _known(config: MeasureConfig, subject: Subject) -> Found:
    """Known metrics of the logit-gradient as an attribution, at points of the alignment."""
    x, labels = subject.points.noisy[:POINTS], subject.points.labels[:POINTS]
    return known(
        subject.network, x, labels, subject.shape, sigma=config.noise,
        randomised=subject.randomised, draws=partial(_draws, config),
    ), {}  # fmt: skip


def _robustness(config: MeasureConfig, subject: Subject) -> Found:
    """Of clean images, on and off the principal directions of all rows, if any is off them."""
    x, gaussian = subject.points.clean, subject.blind["gaussian"]
    noise = config.noise**2 * torch.eye(x.shape[1], device=x.device)
    directions = principal(gaussian.covariances[0] - noise)
    if directions.shape[1] == x.shape[1]:
        return {}, {}
    size, draws = config.noise * x.shape[1] ** 0.5, _draws(config, "manifold")
    found = off_manifold(subject.network, x, directions, size, draws)
    return {"off-manifold": found}, {}


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
    found = metrics.gradients(subject.network, points.clean, points.labels)
    pixels = saliency(points.clean, shape)
    saliencies = {
        "raw": saliency(found.own, shape),
        "centred": saliency(found.centred, shape),
        "magnitude": magnitude(points.clean, shape),
        "random": uniform(pixels.shape, pixels, _draws(config, "random saliency")),
    }
    if pixels.shape != points.clean.shape:
        saliencies["deviation"] = deviation(found.own, shape)
    judges = {"own": subject.network, "base": subject.baseline, "other": subject.judge}
    numbers, arrays = {}, {}
    for judge, network in judges.items():
        for name, salience in saliencies.items():
            curve = accuracies(network, points.clean, points.labels, salience, FRACTIONS)
            area = float(trapezoid(curve, FRACTIONS))
            numbers[f"PP/{judge}/{name}"] = area / float(np.ptp(FRACTIONS))
            arrays[f"PP/{judge}/{name}"] = np.array(curve)
    return numbers, arrays


def _ratios(config: MeasureConfig, subject: Subject) -> Found:
    """Logarithms of mean density ratios, and means of their logarithms."""
    points, ratios = subject.points, []
    for index, sigma in enumerate(SIGMAS):
        draws = _draws(config, "ratio", index)
        mean, log = density_ratio(subject.network, points.clean, points.labels, sigma, draws)
        ratios.append((mean, log.value))
    means, logs = map(np.array, zip(*ratios, strict=True))
    numbers = {f"log mean ratio/{s:g}": float(v) for s, v in zip(SIGMAS, means, strict=True)}
    numbers |= {f"mean log ratio/{s:g}": float(v) for s, v in zip(SIGMAS, logs, strict=True)}
    return numbers, {"log mean ratio": means, "mean log ratio": logs}


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
    numbers = {
        "GAN-test": accuracy(subject.judge, pictures, labels),
        "samples/log density": float(dense.mean()),
    }
    return numbers, {"samples": pictures[: SHOWN**2].cpu().numpy()}


def _pictures(config: MeasureConfig, subject: Subject) -> Found:
    """Gradients and attributions of the first test image of each class."""
    points = subject.points
    firsts = [int((points.labels == k).nonzero()[0]) for k in points.labels.unique()[:SHOWN]]
    x, labels = points.clean[firsts], points.labels[firsts]
    found = metrics.gradients(subject.network, x, labels)
    arrays = {"images": x, "gradients": found.own, "centred": found.centred}
    arrays |= attributions(subject.network, x, labels)
    return {}, {name: values.cpu().numpy() for name, values in arrays.items()}


def _changes(config: MeasureConfig, subject: Subject) -> Found:
    """What is other than in the baseline."""
    points = subject.points
    found = fooling.invariants(subject.baseline, subject.network, points.noisy, points.labels)
    return {f"change/{name}": value for name, value in asdict(found).items()}, {}


ROWS = (
    ("taylor", "gaussian"),
    ("taylor_cv", "gaussian"),
    ("taylor_cv", "rademacher"),
    ("taylor_cv", "sphere"),
    ("two_sided", "gaussian"),
    ("two_sided", "rademacher"),
    ("hutchinson", "gaussian"),
    ("hutchinson", "rademacher"),
    ("exact", "rademacher"),
)
"""Trace estimators that are measured, and the laws of their directions."""


def estimators(
    config: MeasureConfig, subject: Subject, *, count: int = 100, repeats: int = 100
) -> Found:
    """Returns what one estimate of a trace is worth, with shape (steps, 3) an estimator.

    In a row: the mean, the deviation at a point, and the deviation that ``trace_variance`` has
    for the points' gradients and Hessians. The number is the deviation without over that with the
    control variate, at σ = 0.01. ``estimators/trace`` is the exact mean trace,
    ``estimators/gradient`` the root mean square of the gradients.
    """
    x, labels = subject.points.noisy[:count], subject.points.labels[:count]
    density = ClassLogit(subject.network, labels)
    score, hessian = _hessian(density, x)
    found: dict[str, np.ndarray] = {}
    for name, kind in ROWS:
        u = draw_directions(kind, repeats, x, _draws(config, "estimators", kind))
        expected = partial(trace_variance, name, score, hessian, directions=kind)
        spreads = [
            (*_spread(name, density, x, u, step), float(expected(step=step).mean().sqrt()))
            for step in (STEPS if name in DIFFERENCES else STEPS[:1])
        ]
        found[f"estimators/{name}/{kind}"] = np.array(spreads * (len(STEPS) // len(spreads)))
    found["estimators/trace"] = np.array(float(hessian.diagonal(dim1=1, dim2=2).sum(1).mean()))
    found["estimators/gradient"] = np.array(float(score.square().sum(1).mean().sqrt()))
    at = STEPS.index(0.01)
    noisy, quiet = (found[f"estimators/{n}/gaussian"][at, 1] for n in ("taylor", "taylor_cv"))
    return {"estimators/noise": float(noisy / quiet)}, found


def _spread(
    name: str, density: ClassLogit, x: torch.Tensor, u: torch.Tensor, step: float
) -> tuple[float, float]:
    """Returns the mean of the estimates, and their deviation at a point."""
    traces = ESTIMATORS[name](density, x, u, step)[1].detach()
    deviation = traces.var(0, unbiased=len(traces) > 1).mean().sqrt()
    return float(traces.mean()), float(deviation)


def _hessian(density: ClassLogit, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns g with shape (B, D) and H with shape (B, D, D); D backward passes."""
    x = x.detach().requires_grad_()
    score = density.score(x)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0]
            for column in score.unbind(1)]  # fmt: skip
    return score.detach(), torch.stack(rows, 1)
