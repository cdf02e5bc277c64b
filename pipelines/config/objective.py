"""The loss of a training: an objective, its anchor, and further terms."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ebflow import recipes
from ebflow.errors import BadInput
from pipelines.config.section import Section

Objective = Literal["ml", "lazy_ml", "relative_ml", "sml", "dsm", "exact_sm", "ssm", "ssm_vr",
                    "fd_ssm", "taylor_sm"]  # fmt: skip
"""The objectives of any flow."""

LEARNED_INVERSE = ("self_normalizing", "free_form")
"""The objectives that learn the inverses of linear layers."""

LIKELIHOOD = (*recipes.LIKELIHOOD, *LEARNED_INVERSE)
"""The objectives that are a likelihood; all others match scores, and may have an anchor."""

DIFFERENCES = ("fd_ssm", "taylor_sm")
"""The objectives that subtract energies of near points."""

USERS: dict[str, tuple[str, ...]] = {
    "sigma": ("dsm",),
    "sigma_end": ("dsm",),
    "levels": ("dsm",),
    "antithetic": ("dsm",),
    "epsilon": ("fd_ssm",),
    "slices": ("ssm", "ssm_vr", "taylor_sm"),
    "directions": ("ssm", "ssm_vr", "taylor_sm"),
    "estimator": ("taylor_sm",),
    "step": ("taylor_sm",),
    "reconstruction": LEARNED_INVERSE,
    "weight": ("dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm"),
    "every": ("dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm"),
}
"""The objectives that use an option; for all others it stays at its default."""


class ObjectiveConfig(Section):
    """The objective that a step minimizes, besides the anchor."""

    name: Literal[Objective, "self_normalizing", "free_form"] = Field(
        "dsm", description="objective"
    )
    sigma: float = Field(0.3, gt=0, description="noise of dsm, in units of the matched data")
    sigma_end: float | None = Field(
        None,
        gt=0,
        description="noise of dsm at the end of training, geometrically from sigma, or of the "
        "last of several levels; None: sigma throughout",
    )
    levels: int = Field(
        1,
        ge=1,
        description="noise levels of dsm from sigma to sigma-end, of which every example draws "
        "one (losses weighed by the squared noise); 1: the same noise for all",
    )
    antithetic: bool = Field(
        False, description="dsm at noises of both signs: less variance, twice the cost"
    )
    epsilon: float = Field(0.1, gt=0, description="step of fd_ssm, in units of the matched data")
    slices: int = Field(
        1, ge=1, description="random directions an example of ssm, ssm_vr, taylor_sm"
    )
    directions: Literal["rademacher", "gaussian", "sphere", "orthogonal"] = Field(
        "rademacher", description="law of these directions"
    )
    estimator: Literal["taylor", "taylor_cv", "two_sided"] = Field(
        "taylor_cv",
        description="trace of taylor_sm: one-sided, with its control variate, or two-sided",
    )
    step: float = Field(
        0.03, gt=0, description="step of taylor_sm, in units of the matched data, times √D in norm"
    )
    reconstruction: float = Field(
        2.0,
        gt=0,
        description="factor of the squared error of inverses that self_normalizing and free_form "
        "learn",
    )
    weight: float | None = Field(
        None,
        ge=0,
        description="factor of score matching; None: 1 where there is no anchor; beside one, σ² "
        "for dsm (its size is D / σ²), 1 with several levels, 0.01 for the others",
    )
    every: int = Field(
        1,
        ge=1,
        description="match scores in every n-th step; the others are the anchor's alone, and as "
        "cheap as lazy_ml's",
    )

    @classmethod
    def of(cls, name: str, **options: Any) -> "ObjectiveConfig":  # noqa: ANN401
        """Returns the objective of that name with those of the ``options`` that it uses."""
        return cls(name=name, **{key: options[key] for key in options if name in USERS[key]})

    def kept_by(self, name: str) -> "ObjectiveConfig":
        """Returns this with all that another objective does not use at its default."""
        unused = [option for option, users in USERS.items() if name not in users]
        fields = type(self).model_fields
        return self.model_copy(update={option: fields[option].default for option in unused})

    @property
    def options(self) -> dict[str, Any]:
        """The options that this objective uses."""
        return {name: getattr(self, name) for name, users in USERS.items() if self.name in users}

    @model_validator(mode="after")
    def _what_is_set_is_used(self) -> "ObjectiveConfig":
        default = self.kept_by(self.name)
        for name, users in USERS.items():
            found, expected = getattr(self, name), getattr(default, name)
            if found != expected:
                raise BadInput(
                    option=name,
                    found=f"{found}, which {self.name} does not use",
                    expected=f"{expected} (its default; it is for {', '.join(users)})",
                )
        return self

    @model_validator(mode="after")
    def _a_ladder_has_two_ends(self) -> "ObjectiveConfig":
        if self.levels > 1 and self.sigma_end is None:
            found = f"None with {self.levels} levels"
            raise BadInput(option="sigma_end", found=found, expected="the noise of the last")
        return self


class AnchorConfig(Section):
    """The likelihood gradient with a lazily refreshed normalizer, beside score matching.

    For lazy_ml the rule of refreshing holds, and not the weight; the other likelihood objectives
    need no anchor.
    """

    weight: float = Field(
        1.0, ge=0, description="factor of the anchor beside score matching; 0: none"
    )
    clean: bool = Field(False, description="take the anchor of dsm at the data without noise")
    interval: int = Field(100, ge=1, description="steps between refreshes at most")
    tolerance: float | None = Field(
        0.1, gt=0, description="drift that brings a refresh forward (share); None: interval alone"
    )
    check_every: int = Field(5, ge=1, description="steps between probes of the drift")


class StabiliseConfig(Section):
    """Further remedies against what score matching cannot see."""

    low_energy: float = Field(0.0, ge=0, description="factor of the mean energy (biased)")
    latent_mean: float = Field(0.0, ge=0, description="factor of the squared latent mean")
    finish: float = Field(
        0.0, ge=0, le=1, description="share of the training, at its end, by exact ML"
    )
