"""How a classifier was trained, in one line for a person, or in a few words."""

from collections.abc import Iterator

from pipelines.gradient_alignment.config import ClassifierConfig, RegulariserConfig


def method(config: ClassifierConfig) -> str:
    """Returns the line: loss; noise; net; optimiser."""
    clip = "" if config.clip is None else f", gradient at most {config.clip:.3g}"
    rate = f"{config.optimizer} {config.lr:g} {config.schedule}{clip}"
    size = f"{config.epochs} epochs, batch {config.batch_size}"
    loss = " + ".join(["cross-entropy", *_penalty(config.regulariser)])
    return f"{loss}; noise {config.noise:.3g}; {config.net.name}; {rate}, {size}"


def _penalty(config: RegulariserConfig) -> Iterator[str]:
    if config.name == "none":
        return
    options = ", ".join(_options(config))
    name = f"centred {config.name}" if config.centred else config.name
    yield f"{config.weight:.3g} × {name}" + (f" ({options})" if options else "")


def _options(config: RegulariserConfig) -> Iterator[str]:
    """Yields what the penalty is told, without what its estimator does not use."""
    if config.name in ("score", "anti"):
        yield config.estimator
        if config.estimator != "exact":
            yield f"{config.slices} {config.directions}"
        if config.estimator not in ("exact", "hutchinson"):
            yield f"step {config.step:.3g}"
    if config.name == "score":
        yield f"μ = {config.stability:.3g}"
        if config.floor is not None:
            yield f"floor {config.floor:.3g}"
    if config.name == "anti":
        yield f"τ = {config.ceiling:.3g}"
    if config.warmup:
        yield f"warm-up {config.warmup:.0%}"


def title(config: RegulariserConfig) -> str:
    """Returns a penalty, its estimator and its strength, as ``score taylor_cv λ 0.1``."""
    if config.name == "none":
        return "cross-entropy"
    estimator = f" {config.estimator}" if config.name in ("score", "anti") else ""
    return f"{config.name}{estimator} λ {config.weight:.2g}"
