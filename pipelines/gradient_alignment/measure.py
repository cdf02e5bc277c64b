"""Measures a trained classifier: alignment, robustness to perturbation, and pictures."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from ebflow.alignment import attribution, fooling, logit, metrics
from ebflow.alignment.logit import Classifier, ClassLogit, accuracy
from ebflow.alignment.reference import Normalized, Reference, Scores
from ebflow.alignment.robustness import off_manifold, principal
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.objectives import draw_directions, taylor_cv
from ebflow.randomness import generator as derive
from ebflow.randomness import uniform
from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import explanations
from pipelines.gradient_alignment.classify import DIVERGED, OUTCOME, load
from pipelines.gradient_alignment.config import SIGMAS, MeasureConfig
from pipelines.gradient_alignment.reference import (
    Points,
    of_split,
    open_blind,
    open_reference,
    unit_rows,
)
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun

# Fractions of pixels that are replaced, as in the paper's code.
FRACTIONS = np.geomspace(0.01, 1, 25)

# The most ascended pictures, and classes with an image and its gradients, that are saved.
PICTURES, CLASSES = 64, 8

CHOSEN_BY = ("accuracy", "A3", "DSM-cos")  # Metrics at validation points

PRINCIPAL = 1_500  # The most training rows whose principal directions are the manifold

WIDEST = 256  # The most dimensions with an exact trace, which takes as many backward passes

Results = dict[str, float | np.ndarray]  # Numbers, and arrays for figures, by name


def measure(
    config: MeasureConfig,
    data: Path,
    flows: Sequence[Path],
    all_rows: Sequence[Path],
    trained: Path,
    baseline: Path,
    judge: Path,
    *,
    run: StageRun,
) -> None:
    """Writes ``numbers.json`` and ``arrays.npz``, without numbers if the training diverged.

    ``flows`` are those of the reference and ``all_rows`` has the class-blind one, if there is a
    reference; ``baseline`` is that of the classifier's seed, and
    ``judge`` a network of another architecture.
    """
    dataset = run.open(config, Dataset(data), "testing")
    outcome = json.loads((trained / OUTCOME).read_text())
    results: Results = {}
    if not outcome["diagnosis"].startswith(DIVERGED):
        shape, classes = dataset.manifest.shape, dataset.manifest.classes
        networks = [load(folder, shape, classes) for folder in (trained, baseline, judge)]
        points, densities = of_split(config, dataset, "test"), open_reference(flows, dataset)
        blind = open_blind(config.shift, all_rows, dataset, config.noise)
        validation = of_split(config, dataset, "validation")
        rows = unit_rows(dataset.split("train"))[:PRINCIPAL]
        results = measured(config, networks, shape, points, densities, blind, principal(rows))
        results |= held_out(config, networks[0], shape, validation, densities, blind)
        results["trace/training"] = outcome["trace"]
    arrays = {name: one for name, one in results.items() if isinstance(one, np.ndarray)}
    numbers = {name: one for name, one in results.items() if name not in arrays}
    write_json(
        run.output / "numbers.json", {"numbers": numbers, "diagnosis": outcome["diagnosis"]}
    )
    np.savez(run.output / "arrays.npz", **arrays)
    run.log_metrics({name.replace(" ", "_"): value for name, value in numbers.items()})


@products("highest")
def measured(
    config: MeasureConfig,
    networks: Sequence[Classifier],
    shape: Sequence[int],
    points: Points,
    reference: Reference | None,
    blind: Normalized | None,
    manifold: Tensor,
) -> Results:
    """Returns all numbers and arrays of a classifier at test points, shifted as configured.

    ``networks`` are the classifier, its baseline and the judge; ``shape`` is that of an example;
    ``blind`` is the class-blind density that is added to the logits, if one is; ``manifold`` has
    the principal directions of the data, with shape (D, k).

    Raises:
        NonFinite: If a gradient is not finite.
    """
    trained, baseline, judge = networks
    network = _shifted(config, trained, shape, blind)
    x, labels, random = points.clean, points.labels, partial(derive, config.seed)
    results = _gradients(network, points, reference, random("shuffle"))
    results["trace"] = _trace(network, points, random("trace"))
    if config.brief:
        return results
    changes = metrics.invariants(baseline, network, points.noisy, labels)
    return {
        **results,
        **_perturbation(config, [network, baseline, judge], points, shape),
        **_irof(network, points, shape),
        **_robustness(config, network, points, manifold),
        **_ratios(network, points, random),
        **_ascent(config, network, judge, labels[: config.samples], x.shape[1], reference),
        **_pictures(network, points),
        **{f"change/{name}": value for name, value in changes.items()},
        **_pattern(network, points, shape),
    }


@products("highest")
def held_out(
    config: MeasureConfig,
    trained: Classifier,
    shape: Sequence[int],
    points: Points,
    reference: Reference | None,
    blind: Normalized | None,
) -> Results:
    """Returns what a search chooses by, at validation points; arguments as of ``measured``."""
    network = _shifted(config, trained, shape, blind)
    found = _gradients(network, points, reference, derive(config.seed, "validation"))
    return {f"validation/{name}": found[name] for name in CHOSEN_BY if name in found}


def _shifted(
    config: MeasureConfig,
    network: Classifier,
    shape: Sequence[int],
    blind: Normalized | None,
) -> Classifier:
    """Returns the classifier with what the configuration adds to its logits."""
    if config.shift == "none":
        return network
    if blind is not None:
        return logit.shifted(network, blind.log_prob)
    pattern = fooling.pattern_of(shape)
    if config.shift == "ripple":
        return fooling.ripple(network, pattern)
    return logit.shifted(network, fooling.SHIFTS[config.shift](pattern))


def _pattern(network: Classifier, points: Points, shape: Sequence[int]) -> Results:
    """Returns mean cosines of gradients with the pattern; of the loss, without their signs."""
    gradients = metrics.gradients(network, points.noisy, points.labels)
    pattern = fooling.pattern_of(shape).expand_as(points.noisy)
    of_loss = torch.cosine_similarity(gradients.loss_direction, pattern)
    return {
        "pattern/logit": float(torch.cosine_similarity(gradients.own, pattern).mean()),
        "pattern/loss": float(of_loss.abs().mean()),
    }


def _gradients(
    network: Classifier,
    points: Points,
    reference: Reference | None,
    generator: torch.Generator,
) -> Results:
    """Returns accuracies, and numbers of gradients at noisy points."""
    gradients = metrics.gradients(network, points.noisy, points.labels)
    if not gradients.own.isfinite().all():
        raise NonFinite("gradient: found one that is not finite, expected finite logits")
    noise_cosine, residual = metrics.dsm(gradients.own, points.noise, points.sigma)
    numbers: Results = {
        "accuracy": accuracy(network, points.clean, points.labels),
        "accuracy/noisy": accuracy(network, points.noisy, points.labels),
        "gradient": float(gradients.own.norm(dim=1).mean()),
        "DSM-cos": float(noise_cosine.mean()),
        "DSM residual": residual.value,
    }
    if reference is None:
        return numbers
    return numbers | _alignment(gradients, reference.at(points.noisy), generator)


def _alignment(
    gradients: metrics.Gradients, scores: Scores, generator: torch.Generator
) -> Results:
    """Returns alignments with the scores of a reference."""
    others = metrics.another_point(scores.marginal, generator)
    control = metrics.alignments(gradients, scores, others)
    cosines = metrics.alignments(gradients, scores)
    cosines |= {f"{name}/shuffled": values for name, values in control.items()}
    numbers: Results = {name: float(values.mean()) for name, values in cosines.items()}
    own = metrics.of_label(scores.classes, gradients.labels)
    numbers["A1/centred"] = float(torch.cosine_similarity(gradients.centred, own).mean())
    return numbers | metrics.fisher_ratios(gradients, scores.classes)


def _trace(network: Classifier, points: Points, generator: torch.Generator) -> float:
    """Returns the mean trace; from eight directions if the exact trace is too expensive."""
    density, x = ClassLogit(network, points.labels), points.noisy
    if x.shape[1] <= WIDEST:
        return float(density.at(x).laplacian().detach().mean())
    u = draw_directions("rademacher", 8, x, generator)
    return float(taylor_cv(density, x, u, 0.03)[1].detach().mean())


def _perturbation(
    config: MeasureConfig,
    networks: Sequence[Classifier],
    points: Points,
    shape: Sequence[int],
) -> Results:
    """Returns accuracies of each judge on perturbed clean images, by each saliency.

    ``networks`` are the classifier, which is its own judge, its baseline and another judge.
    ``curve/…`` has the accuracies of every fraction of ``FRACTIONS``, and ``PP/…`` their mean.
    """
    x, labels = points.clean, points.labels
    judges = dict(zip(("own", "base", "other"), networks, strict=True))
    gradients = metrics.gradients(networks[0], x, labels)
    raw = attribution.saliency(gradients.own, shape)
    saliencies = {"raw": raw, "centred": attribution.saliency(gradients.centred, shape)}
    pairs = [(judge, name) for judge in judges for name in saliencies]
    controls = _controls(config, gradients.own, x, shape)
    pairs += [("own", name) for name in controls]
    saliencies |= controls
    results: Results = {}
    for judge, name in pairs:
        curve = explanations.perturbed_accuracies(
            judges[judge], x, labels, saliencies[name], FRACTIONS
        )
        area = float(trapezoid(curve, FRACTIONS))
        results[f"PP/{judge}/{name}"] = area / float(np.ptp(FRACTIONS))
        results[f"curve/{judge}/{name}"] = np.array(curve)
    return results


def _controls(
    config: MeasureConfig, gradients: Tensor, x: Tensor, shape: Sequence[int]
) -> dict[str, Tensor]:
    """Returns saliencies beside the norm of gradients: two know no classifier, one is the code's.

    The deviation over colours needs several colours.
    """
    size = attribution.magnitude(x, shape)
    saliencies = {
        "magnitude": size,
        "random": uniform(size.shape, size, derive(config.seed, "random saliency")),
    }
    if len(shape) == 3 and shape[0] > 1:
        saliencies["deviation"] = attribution.deviation(gradients, shape)
    return saliencies


def _irof(network: Classifier, points: Points, shape: Sequence[int]) -> Results:
    """Returns the mean IROF of images that the classifier has right, if there is one."""
    right = network(points.clean).argmax(1) == points.labels
    if len(shape) not in (2, 3) or not right.any():
        return {}
    x, labels = points.clean[right], points.labels[right]
    gradients = ClassLogit(network, labels).score(x).detach()
    salience = attribution.saliency(gradients, shape)
    areas = attribution.irof(network, x, labels, salience, attribution.patches(shape))
    return {"IROF": float(areas.mean())}


def _robustness(
    config: MeasureConfig, network: Classifier, points: Points, manifold: Tensor
) -> Results:
    """Returns the robustness off the manifold, if there is a direction off it."""
    width, count = manifold.shape
    if count >= width:
        return {}
    size, generator = config.noise * math.sqrt(width), derive(config.seed, "manifold")
    return {"off-manifold": off_manifold(network, points.clean, manifold, size, generator)}


def _ratios(
    network: Classifier, points: Points, random: Callable[..., torch.Generator]
) -> Results:
    """Returns the logarithm of the mean density ratio, and the mean of its logarithm."""
    x, labels, numbers = points.clean, points.labels, {}
    for index, sigma in enumerate(SIGMAS):
        generator = random("ratio", index)
        mean, log = explanations.density_ratio(network, x, labels, sigma, generator)
        numbers |= {f"log mean ratio/{sigma:g}": mean, f"mean log ratio/{sigma:g}": log.value}
    return numbers


def _ascent(
    config: MeasureConfig,
    network: Classifier,
    judge: Classifier,
    labels: Tensor,
    width: int,
    reference: Reference | None,
) -> Results:
    """Returns ascended pictures, the judge's accuracy on them, and their log-density if any."""
    options = {"steps": config.ascent, "rate": config.rate, "width": width}
    generator = derive(config.seed, "ascent")
    pictures = explanations.maximize(network, labels, generator=generator, **options)
    results: Results = {
        "GAN-test": accuracy(judge, pictures, labels),
        "samples": pictures[:PICTURES].numpy(),
    }
    if reference is not None:
        log_density = metrics.of_label(reference.at(pictures).log_probs.T, labels) / width
        results["samples/log density"] = float(log_density.mean())
    return results


def _pictures(network: Classifier, points: Points) -> Results:
    """Returns the first test image of each class, its prediction and the gradients there."""
    firsts = [int((points.labels == k).nonzero()[0]) for k in points.labels.unique()[:CLASSES]]
    x = points.clean[firsts]
    gradients = metrics.gradients(network, x, points.labels[firsts])
    most = gradients.posterior.max(1)
    arrays = {
        "predicted": most.indices,
        "probability": most.values,
        "images": x,
        "gradients": gradients.own,
        "centred": gradients.centred,
        "loss": gradients.loss_direction,
    }
    return {name: values.numpy() for name, values in arrays.items()}
