"""Short names of nets, losses and cells, for tables of runs."""

__all__ = ["cell", "loss", "net"]

from pipelines.config import LIKELIHOOD, ModelConfig, Section, Training
from pipelines.training.nets import options


def net(model: ModelConfig) -> str:
    """Returns the architecture and its depth, as ``dense-3``."""
    depth = options(model).get("depth")
    return model.architecture if depth is None else f"{model.architecture}-{depth}"


def loss(config: Training) -> str:
    """Returns the objective, its noise and the anchor beside it, as ``dsm σ 0.3 + anchor``."""
    objective = config.objective
    anchored = objective.name not in LIKELIHOOD and config.anchor.weight
    return objective.name + _noise(config) + (" + anchor" if anchored else "")


def _noise(config: Training) -> str:
    used = config.objective.options
    if "sigma" not in used:
        return ""
    end = used["sigma_end"]
    return f" σ {used['sigma']:.3g}" + ("" if end is None else f" … {end:.3g}")


TOLD = ("target", "law", "net", "ratio", "size", "width", "depth", "rarity", "hypotheses", "eta",
        "at", "a", "w", "noise", "panel", "objective", "estimator")  # fmt: skip
"""What tells cells of the study of sample complexity apart, besides their kind and seeds."""


def cell(config: Section) -> str:
    """Returns a cell's kind, what varies, and its first seed, as ``network, ratio 8, seed 6``."""
    kind = type(config).__name__.removesuffix("Cell").lower()
    found = {name: getattr(config, name, None) for name in (*TOLD, "first")}
    named = {"first": "seed"}
    told = [f"{named.get(name, name)} {_value(value)}" for name, value in found.items()
            if value is not None]  # fmt: skip
    return ", ".join([kind, *told])


def _value(value: float | str | bool) -> str:
    return str(value) if isinstance(value, str | bool) else f"{value:g}"
