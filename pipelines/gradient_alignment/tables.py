"""Tables of the study, with a row for each model."""

from collections.abc import Mapping, Sequence

from pipelines.gradient_alignment import search
from pipelines.gradient_alignment.config import SIGMAS
from pipelines.gradient_alignment.questions import Study
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import Interval

Column = tuple[str, str, int]  # A metric in a table, its heading, and its decimals

# The columns of the table of models.
COLUMNS: Sequence[Column] = (
    ("accuracy", "accuracy", 3),
    ("gradient", "‖g‖", 2),
    ("trace", "tr H", 0),
    ("A1", "A1", 3),
    ("A1/over gaussian", "A1 over Gaussian", 3),
    ("A1/over flow", "A1 over flow", 3),
    ("A2", "A2", 3),
    ("A3", "A3", 3),
    ("A1/centred", "A1 centred", 3),
    ("DSM-cos", "DSM-cos", 3),
    ("relF-opt/centred", "relF-opt centred", 3),
    ("GAN-test", "GAN-test", 2),
    ("samples/log density", "log p / D", 2),
    ("PP/own/raw", "PP own", 3),
    ("PP/own/centred", "PP centred", 3),
    ("PP/other/raw", "PP other", 3),
    ("PP/other/centred", "PP other, centred", 3),
)

# The columns of the table of further measures of gradients as explanations.
FURTHER: Sequence[Column] = (
    ("PP/base/raw", "PP baseline judges", 3),
    ("PP/base/centred", "the same, centred", 3),
    ("PP/own/deviation", "PP own, deviation", 3),
    ("PP/own/magnitude", "PP own, magnitude", 3),
    ("PP/own/random", "PP own, random", 3),
    ("IROF", "IROF", 3),
    ("off-manifold", "on/off manifold", 2),
)
OF_FURTHER = (
    " PP: pixel perturbation, judged by the baseline as in the paper, or by the model with other "
    "saliencies: the deviation of gradients over colours, as in the paper's code, and two that "
    "know no classifier, the distance of a pixel from the image's mean and random numbers. IROF: "
    "area over the curve of p(y | x) while the most salient patches of a 4 × 4 grid are filled; "
    "more is better. On/off manifold: change of the centred logits by noise along the data's "
    "principal directions, over that by noise of the same length off them."
)

# The metrics on a terminal.
BRIEF = ("accuracy", "gradient", "A1", "A1/over gaussian", "A1/over flow", "A3", "PP/own/raw")

BESIDE = ("accuracy", "GAN-test", "A1", "A3", "DSM-cos")  # Metrics beside the paper's table

BRIEF_ALONE = ("accuracy", "gradient", "DSM-cos", "GAN-test", "PP/own/raw")  # without reference

# The columns of the table of density ratios.
RATIOS = [(f"{kind}/{sigma:g}", f"{kind}, {sigma:g}", 2)
          for kind in ("mean log ratio", "log mean ratio") for sigma in SIGMAS]  # fmt: skip

# The paper's table (CIFAR-100, ResNet-18): method, test accuracy and GAN-test in %, and the models
# here: with the paper's settings, recommended, and for colour images.
PUBLISHED = (
    ("baseline", 78.01, 59.47, ("baseline",)),
    ("anti-score-matching", 74.87, 16.40, ("paper-anti", "anti")),
    ("gradient norm", 76.60, 80.07, ("paper-gnorm", "gnorm", "colour-control")),
    ("score matching", 72.20, 72.75, ("paper-score", "score", "colour-score")),
)

NOTE = "Means over seeds ± 95 % intervals."
METRICS = (
    " A1 over: less that of the baseline of the seed with the class-blind density on every logit; "
    "A1 centred: of the centred gradient with the class's whole score. PP: mean accuracy while "
    "the least salient pixels are filled in, by own or class-mean-centred gradients, judged by "
    "the model or a network of another architecture (as the GAN-test is); log p / D: log-density "
    "of ascended pictures under the reference, nats a dimension."
)
OF_RATIOS = (
    "log p(x + η | y) − log p(x | y) in nats, by deviation of the noise η: the mean of the "
    "logarithm, and the logarithm of the mean, which outliers dominate. Means over seeds ± 95 % "
    "intervals. Above 0 the noisy image is taken for the denser one."
)


def headline(study: Study) -> Table:
    """Returns the table of models that a terminal shows."""
    shown = BRIEF if "A1" in study.numbers else BRIEF_ALONE
    return _by_model("Models", study, [column for column in COLUMNS if column[0] in shown], NOTE)


def tables(study: Study, reference: Mapping[str, Interval]) -> list[Table]:
    """Returns the tables of the page."""
    found = [
        _by_model("Models", study, COLUMNS, NOTE + METRICS),
        published(study),
        *([search.table(study)] if _searched(study) else []),
        _by_model("Further measures of gradients", study, FURTHER, NOTE + OF_FURTHER),
        _by_model("Density ratios of noisy and clean test images", study, RATIOS, OF_RATIOS),
        Table(
            "What the models are",
            ("model", "about", "λ", "diagnosis"),
            [(name, model.about, f"{model.classifier.regularizer.weight:.3g}",
              study.diagnoses[name]) for name, model in study.models.items()],
        ),
    ]  # fmt: skip
    return [*found, _of_reference(reference)] if reference else found


def _searched(study: Study) -> bool:
    return any(model.cell is not None for model in study.models.values())


def published(study: Study) -> Table:
    """Returns the paper's table of accuracy and GAN-test beside the models of this study."""
    columns = [column for column in COLUMNS if column[0] in BESIDE and column[0] in study.numbers]
    lines = [
        (method, f"{accuracy:.2f}", f"{gan:.2f}", name, *_means(study, name, columns))
        for method, accuracy, gan, names in PUBLISHED
        for name in names
        if name in study.models
    ]
    return Table(
        "The paper's table beside ours",
        (
            "method",
            "accuracy, paper (%)",
            "GAN-test, paper (%)",
            "model",
            *(heading for _, heading, _ in columns),
        ),
        lines,
        f"Published: CIFAR-100, ResNet-18, one seed. Here: the data of this run. {NOTE}",
    )


def _of_reference(reference: Mapping[str, Interval]) -> Table:
    lines = [
        (name.removeprefix("reference/"), plus_minus(one, 4)) for name, one in reference.items()
    ]
    note = f"{NOTE} Log-densities: nats a dimension, at noisy points."
    headings = ("quantity", "value")
    return Table("Reference flows and class-blind densities", headings, lines, note)


def _by_model(title: str, study: Study, columns: Sequence[Column], note: str) -> Table:
    """Returns a table with a row for each model, without columns that no model has."""
    measured = [column for column in columns if column[0] in study.numbers]
    named = [name for name, model in study.models.items() if model.cell is None]
    rows = [(name, *_means(study, name, measured)) for name in named]
    return Table(title, ("model", *(heading for _, heading, _ in measured)), rows, note)


def _means(study: Study, name: str, columns: Sequence[Column]) -> list[str]:
    """Returns the means of a model in columns of a table, with their intervals."""
    return [plus_minus(study.interval(metric, name), digits) for metric, _, digits in columns]
