"""What a page of the study tells besides its claims and figures."""

from collections.abc import Mapping

from pipelines.gradient_alignment import attributions
from pipelines.gradient_alignment.attributions import Orders
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.measures import SIGMAS
from pipelines.gradient_alignment.over_seeds import COLUMNS, Column, Lines, by_model
from pipelines.gradient_alignment.scales import SCALES
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import Interval


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


def tables(lines: Lines, quality: Mapping[str, Interval], orders: Orders) -> list[Table]:
    """Returns the models with their intervals, known metrics of them, and the reference."""
    named = {name.removeprefix("reference/"): one for name, one in quality.items()}
    return [
        _models(lines),
        _density_ratios(lines),
        *attributions.tables(lines, orders),
        _settings(lines),
        Table(
            "Reference flows and class-blind densities",
            ("quantity", "value"),
            [(name, plus_minus(one, 4)) for name, one in named.items()],
            "Means over seeds ± 95 % intervals. Log-densities: nats a dimension, at noisy points.",
        ),
    ]


def _models(lines: Lines) -> Table:
    return by_model(
        "Models",
        lines,
        COLUMNS,
        "Means over seeds ± 95 % intervals. A1 over: less that of the baseline of the seed with "
        "the class-blind density on every logit; A1 centred: of the centred gradient with the "
        "class's whole score. PP: mean accuracy while the least salient pixels are filled in, by "
        "own or class-mean-centred gradients, judged by the model or a network of another "
        "architecture (as the GAN-test is); log p / D: log-density of ascended pictures under the "
        "reference, nats a dimension.",
    )


def _density_ratios(lines: Lines) -> Table:
    kinds = ("mean log ratio", "log mean ratio")
    return by_model(
        "Density ratios of noisy and clean test images",
        lines,
        [Column(f"{kind}/{s:g}", f"{kind}, {s:g}", 2) for kind in kinds for s in SIGMAS],
        "log p(x + η | y) − log p(x | y) in nats, by deviation of the noise η: the mean of the "
        "logarithm, and the logarithm of the mean, which outliers dominate. Means over seeds ± "
        "95 % intervals. Above 0 the noisy image is taken for the denser one.",
    )


def _settings(lines: Lines) -> Table:
    rows = [
        (name, line.model.about, f"{line.model.classifier.regularizer.weight:.3g}",
         "; ".join(filter(None, [line.diagnosis, *line.seeds[0].warnings])))
        for name, line in lines.items()
    ]  # fmt: skip
    return Table("What the models are", ("model", "about", "λ", "told by its training"), rows)
