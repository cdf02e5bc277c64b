"""The loss of a training: an objective, its anchor, and further terms.

Each kind of objective is a class of options: an option of another objective is an error.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from pipelines.config.section import Section, kinds


class Objective(Section):
    """The function that a step minimizes, besides the anchor."""

    name: str

    @classmethod
    def of(cls, name: str, **options: Any) -> "Objective":  # noqa: ANN401
        """Returns the objective of that name, with those of the options that it has."""
        kind = OBJECTIVES[name]
        return kind(name=name, **{k: v for k, v in options.items() if k in kind.model_fields})

    @property
    def arguments(self) -> dict[str, Any]:
        """The options that are arguments of its function in :mod:`ebflow.objectives`."""
        return self.model_dump(exclude={"name", "weight", "every"})


class Likelihood(Objective):
    """A likelihood, which needs no anchor."""

    name: Literal["ml", "lazy_ml", "relative_ml", "sml"] = "ml"


class LearnedInverse(Objective):
    """A likelihood by learned inverses of linear layers, which needs no anchor."""

    name: Literal["self_normalizing", "free_form"] = "self_normalizing"
    reconstruction: float = Field(2.0, gt=0)
    """factor of the squared error of the inverses"""


class ScoreMatching(Objective):
    """Score matching, the base of its forms."""

    weight: float | None = Field(None, ge=0)
    """factor of score matching; None: 1 without an anchor; beside one, σ² for dsm (its size is
    D / σ²), 0.01 for the others"""
    every: int = Field(1, ge=1)
    """score matching in every n-th step only; the other steps train the anchor alone, at the cost
    of lazy_ml"""


class ExactSm(ScoreMatching):
    """Score matching with the exact trace; for two dense layers, or few columns."""

    name: Literal["exact_sm"] = "exact_sm"


class Dsm(ScoreMatching):
    """Denoising score matching."""

    name: Literal["dsm"] = "dsm"
    sigma: float = Field(0.3, gt=0)
    """noise, in units of the preprocessed data"""
    sigma_end: float | None = Field(None, gt=0)
    """noise at the end of training, geometrically from sigma; None: sigma throughout"""
    antithetic: bool = False
    """noise of both signs for every example: less variance at small sigma, twice the cost"""

    @property
    def arguments(self) -> dict[str, Any]:
        """The noise."""
        return {"sigma": self.sigma, "antithetic": self.antithetic}


class FdSsm(ScoreMatching):
    """Sliced score matching by finite differences."""

    name: Literal["fd_ssm"] = "fd_ssm"
    epsilon: float = Field(0.1, gt=0)
    """step, in units of the preprocessed data"""


class Ssm(ScoreMatching):
    """Sliced score matching."""

    name: Literal["ssm", "ssm_vr"] = "ssm"
    slices: int = Field(1, ge=1)
    """random directions per example"""
    directions: Literal["rademacher", "gaussian", "sphere", "orthogonal"] = "rademacher"
    """distribution of these directions: signs, normal, uniform on a sphere; or the last, and
    orthogonal to each other"""


class TaylorSm(Ssm):
    """Sliced score matching by differences of energies."""

    name: Literal["taylor_sm"] = "taylor_sm"
    estimator: Literal["taylor", "taylor_cv", "two_sided"] = "taylor_cv"
    """estimator of the trace: one-sided, one-sided with its control variate, or two-sided"""
    step: float = Field(0.03, gt=0)
    """step, in units of the preprocessed data, times √D in norm"""


# The classes of objectives by ``name``.
AnyObjective = Annotated[
    Likelihood | LearnedInverse | Dsm | ExactSm | FdSsm | Ssm | TaylorSm,
    Field(discriminator="name", description="objective"),
]

OBJECTIVES: dict[str, type[Objective]] = kinds(FieldInfo.from_annotation(AnyObjective))


class AnchorConfig(Section):
    """The likelihood gradient with a lazily refreshed normalizer, beside score matching.

    For lazy_ml the rule of refreshing holds, and not the weight; the other likelihood objectives
    need no anchor.
    """

    weight: float = Field(1.0, ge=0)
    """factor of the anchor beside score matching; 0: none"""
    interval: int = Field(100, ge=1)
    """steps between refreshes at most"""
    tolerance: float | None = Field(0.1, gt=0)
    """relative drift that causes an earlier refresh; None: only the interval counts"""


class StabiliseConfig(Section):
    """Further remedies against what score matching cannot see."""

    low_energy: float = Field(0.0, ge=0)
    """factor of the mean energy (biased)"""
    latent_mean: float = Field(0.0, ge=0)
    """factor of the squared latent mean"""
    finish: float = Field(0.0, ge=0, le=1)
    """share of the training, at its end, by exact ML"""
