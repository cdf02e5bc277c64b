"""Short names of nets and losses, for tables of runs."""

from pipelines.config import LIKELIHOOD, ModelConfig, Training
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
