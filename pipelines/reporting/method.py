"""Short descriptions of a training."""

from pipelines.config import LIKELIHOOD, ModelConfig, Training
from pipelines.config.section import described
from pipelines.training.nets import options

APART = ("seed", "cluster.", "objective.name", "model.architecture")
"""Settings that are not in the list of changes."""


def method(config: Training) -> str:
    """Returns the line: objective, architecture, and all that is not at its default."""
    subject = f"{config.objective.name} on {config.model.architecture}"
    return described(subject, Training(), config, APART)


def short_net(model: ModelConfig) -> str:
    """Returns the architecture and its depth, as ``dense-3``."""
    depth = options(model).get("depth")
    return model.architecture if depth is None else f"{model.architecture}-{depth}"


def short_loss(config: Training) -> str:
    """Returns the objective, its noise and the anchor beside it, as ``dsm σ 0.3 + anchor``."""
    objective, used = config.objective, config.objective.options
    noise = f" σ {used['sigma']:.3g}" if "sigma" in used else ""
    if used.get("sigma_end") is not None:
        noise += f" … {used['sigma_end']:.3g}"
    anchored = objective.name not in LIKELIHOOD and config.anchor.weight
    return objective.name + noise + (" + anchor" if anchored else "")
