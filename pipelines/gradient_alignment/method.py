"""How a classifier was trained, in one line for a person, or in a few words."""

from pipelines.config.changes import described
from pipelines.gradient_alignment.config import ClassifierConfig, RegulariserConfig

APART = ("seed", "threads", "gpu", "net.name", "regulariser.name")
"""What the line leaves out, or begins with."""


def method(config: ClassifierConfig) -> str:
    """Returns the line: penalty, network, and all that is not at its default."""
    name = config.regulariser.name
    loss = "cross-entropy" if name == "none" else f"cross-entropy + {name}"
    return described(f"{loss} on {config.net.name}", ClassifierConfig(), config, APART)


def title(config: RegulariserConfig) -> str:
    """Returns a penalty, its estimator and its strength, as ``score taylor_cv λ 0.1``."""
    if config.name == "none":
        return "cross-entropy"
    estimator = f" {config.estimator}" if config.name in ("score", "anti") else ""
    return f"{config.name}{estimator} λ {config.weight:.2g}"
