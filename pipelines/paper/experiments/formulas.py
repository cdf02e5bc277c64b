"""The paper's formulas, metrics and data sets, checked against other ways to compute them.

The bounds of errors are of float64. A z of ``BOUND`` raises a false alarm once in 150,000 checks.
"""

from collections.abc import Iterator, Sequence

from pipelines.paper.cell import Cell, Column, Experiment, Finished
from pipelines.paper.config import FormulasConfig, PaperConfig
from pipelines.reporting.claims import Check, Conclusion
from pipelines.reporting.statistics import below, within

SIZES = {"smoke": (4,), "cpu": (4, 16), "full": (4, 16, 64)}  # D, by scale
REPEATS = {"smoke": 200, "cpu": 2_000, "full": 2_000}

ERROR = 1e-8  # Of float64, in nats
BOUND = 4.5  # Of z
WEIGHTED = 0.05  # The largest gap of the importance-weighted bound, in nats

Z = "difference of means in standard errors"

# Item, sentence, quantity and expected range of each metric.
CHECKS = {
    "study/error_log_prob": (
        "E1", "Energy and normalizer are the log-density.", "largest error, nats", below(ERROR),
    ),
    "study/error_score": (
        "E1", "The score is the gradient of the log-density.", "largest error", below(ERROR),
    ),
    "study/error_exact_loss": (
        "E1", "exact_sm by D directions is ½‖s‖² + tr H.", "largest error", below(ERROR),
    ),
    "study/error_exact_sm": (
        "E1", "exact_sm in closed form is ½‖s‖² + tr H.", "largest error", below(ERROR),
    ),
    "study/z_sml": ("E1", "The gradient of sml is that of ml.", Z, within(BOUND)),
    "study/z_ssm": ("E1", "ssm is unbiased for the exact loss.", Z, within(BOUND)),
    "study/z_ssm_vr": ("E1", "ssm_vr is unbiased for the exact loss.", Z, within(BOUND)),
    "study/z_taylor_sm": ("E1", "taylor_sm is unbiased for the exact loss.", Z, within(BOUND)),
    "study/z_fd_ssm": ("E1", "fd_ssm is unbiased for the exact loss.", Z, within(BOUND)),
    "study/data_sets_missing": (
        "E13", "The data sets of the paper have names.", "data sets without a name", below(0.5),
    ),
    "study/z_kl": ("E14", "KL of two Gaussians is its closed form.", Z, within(BOUND)),
    "study/z_fisher": (
        "E14", "The Fisher divergence of two Gaussians is its closed form.", Z, within(BOUND),
    ),
    "study/gap_weighted": (
        "E14", "Importance-weighted likelihoods of integers are near their probability.",
        "gap, nats a row", within(WEIGHTED),
    ),
}  # fmt: skip


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the checks at each size."""
    for size in SIZES[config.scale]:
        settings = FormulasConfig(size=size, seed=seed, repeats=REPEATS[config.scale])
        yield Cell({"D": str(size)}, settings, seed, stage="formulas")


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns the checks, each of the worst value over sizes and seeds."""
    checks = []
    for metric, (item, sentence, quantity, expected) in CHECKS.items():
        worst = max((one.row[metric] for one in finished), key=abs)
        checks.append(Check.of(sentence, quantity, worst, expected, item=item))
    return Conclusion(checks=tuple(checks))


FORMULAS = Experiment(
    about="the paper's formulas, beside other ways to compute them",
    legend="three dense layers with random weights, float64; errors are the largest over points; "
    "z: differences of means in standard errors",
    uses=frozenset(("seed", "seeds")),
    cells=cells,
    columns=(
        Column("study/error_log_prob", "log p error", 14, interval=False),
        Column("study/z_ssm_vr", "z of ssm_vr", 2, interval=False),
        Column("study/z_fd_ssm", "z of fd_ssm", 2, interval=False),
        Column("study/gap_weighted", "gap (nats)", 3, interval=False),
    ),
    conclude=conclude,
)
