"""What a page of the study tells besides its claims and figures."""

from collections.abc import Mapping, Sequence

from ebflow.inference import Interval
from pipelines.gradient_alignment import judged
from pipelines.gradient_alignment.comparisons import Lines
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.measures import SIGMAS, STEPS
from pipelines.gradient_alignment.scales import SCALES
from pipelines.gradient_alignment.table import COLUMNS, Column, cells, measured
from pipelines.reporting.claims import Table
from pipelines.reporting.intervals import shown

COSTS = {
    "hutchinson": "K backward",
    "taylor": "K forward",
    "taylor_cv": "K forward",
    "two_sided": "2 K forward",
    "exact": "D backward, or D + 1 forward",
}
"""Passes of K directions besides those of the score, for a density whose score is a backward pass.

``exact`` takes forward passes where the network's layers are known (``networks.laplacian``).
"""


def intro(config: AlignmentConfig, lines: Lines) -> str:
    """Returns what was studied, in a few sentences."""
    first = next(iter(lines.values()))
    return (
        f"Classifiers ({first.model.classifier.net.name}) of {config.data.source} and the "
        "gradients of their true-class logits, which are scores of an implicit class-conditional "
        "density, beside the exact scores of reference flows of the data smoothed by noise of "
        f"{config.noise:g}. A1 is the cosine with the score of the class, A2 that of the "
        "marginals, A3 that of class-mean-centred gradients, which no shift of the logits moves. "
        "A1 is told over that of the baseline with a class-blind density on every logit. A seed "
        f"has {OWN[SCALES[config.scale].shared]}. Intervals are over seeds."
    )


OWN = {
    True: "points, a judge and classifiers of its own; the split of the rows and all flows are "
    "those of the first, so that intervals are of these alone",
    False: "a split of the rows, flows, points, a judge and classifiers of its own; intervals "
    "allow for the overlap of splits of the same rows (Nadeau and Bengio, 2003)",
}
"""What is drawn anew with a seed, by whether data and flows are shared."""


def tables(
    lines: Lines, quality: Mapping[str, Interval], attributions: judged.Entries
) -> list[Table]:
    """Returns the models with their intervals, the controls, and the trace estimators."""
    return [
        _models(lines),
        _ratios(lines),
        *judged.tables(lines, attributions),
        _settings(lines),
        _fooling(lines),
        _controls(lines),
        _reference(quality),
        *_estimators(lines),
    ]


def _by_model(title: str, lines: Lines, columns: Sequence[Column], note: str) -> Table:
    headings = ("model", *(column.heading for column in columns))
    return Table(title, headings, cells(lines, columns), note)


def _models(lines: Lines) -> Table:
    return _by_model(
        "Models",
        lines,
        measured(lines, COLUMNS),
        "Means over seeds ± 95 % intervals. A1 over: less that of the baseline of the seed with "
        "the class-blind density on every logit; A1 centred: of the centred gradient with the "
        "class's whole score. PP: mean accuracy while the least salient pixels are "
        "filled in, by own or class-mean-centred gradients (of images in colour also by the "
        "deviation over colours, and not the norm), judged by the model, the baseline, or "
        "a net of another architecture (as the GAN-test is); "
        "log p / D: log-density of ascended pictures under the reference, nats a dimension.",
    )


def _ratios(lines: Lines) -> Table:
    columns = [Column(f"{kind}/{sigma:g}", f"{kind}, {sigma:g}", 2)
               for kind in ("mean log ratio", "log mean ratio") for sigma in SIGMAS]  # fmt: skip
    return _by_model(
        "Density ratios of noisy and clean test images",
        lines,
        columns,
        "log p(x + η | y) − log p(x | y) in nats, by deviation of the noise η: the mean of the "
        "logarithm, and the logarithm of the mean, which outliers dominate. Means over seeds "
        "± 95 % intervals. Above 0 the noisy image is taken for the denser one.",
    )


def _settings(lines: Lines) -> Table:
    rows = [
        (
            name,
            line.model.about,
            f"{line.model.classifier.regulariser.weight:.3g}",
            "; ".join(filter(None, [line.diagnosis, *line.warnings])),
        )
        for name, line in lines.items()
    ]
    return Table("What the models are", ("model", "about", "λ", "told by its training"), rows)


def _fooling(lines: Lines) -> Table:
    names = ("posterior", "same", "loss", "loss_gradient", "logit_gradient")
    headings = ("largest change of a posterior", "same prediction", "largest change of a loss",
                "loss-gradient, relative", "logit-gradient, relative")  # fmt: skip
    rows = [
        (name, *(f"{line.interval(f'change/{k}').value:.2g}" for k in names))
        for name, line in lines.items()
        if name.startswith("fool")
    ]
    note = "Beside the baseline of the same seed, at noisy test points; losses in nats."
    return Table("What fooling leaves", ("model", *headings), rows, note)


def _controls(lines: Lines) -> Table:
    metrics = ("A1/shuffled", "A2/shuffled", "A3/shuffled", "PP/own/random", "PP/own/magnitude")
    headings = ("A1", "A2", "A3", "PP, random", "PP, magnitude")
    note = "Cosines with the scores of other points; pixel perturbation by no gradient."
    rows = cells(lines, list(map(Column, metrics, headings)))
    return Table("Controls", ("model", *headings), rows, note)


def _reference(quality: Mapping[str, Interval]) -> Table:
    rows = [(name.removeprefix("reference/"), shown(found, 4)) for name, found in quality.items()]
    note = "Means over seeds ± 95 % intervals. Log-densities: nats a dimension, at noisy points."
    return Table("Reference flows and class-blind densities", ("quantity", "value"), rows, note)


def _estimators(lines: Lines) -> list[Table]:
    arrays = lines["baseline"].seeds[0].arrays
    names = [name for name in arrays if name.startswith("estimators/") and name.count("/") == 2]
    if not names:
        return []
    exact, told = float(arrays["estimators/trace"]), [name.split("/")[1:] for name in names]
    rows = [
        (f"{estimator}, {kind}", COSTS[estimator],
         *(f"{m - exact:+.2f}, {d:.1f} ({e:.1f})" for m, d, e in arrays[name]))
        for name, (estimator, kind) in zip(names, told, strict=True)
    ]  # fmt: skip
    return [
        Table(
            "Trace estimators",
            ("estimator", "passes", *(f"σ = {step:g}" for step in STEPS)),
            rows,
            f"Bias and deviation of one estimate, in brackets the deviation of the leading order "
            f"in σ; the mean trace is {exact:.2f}. Hutchinson's and the exact one have no σ.",
        )
    ]
