"""What a training minimised, on what, and how: one line for a person, and a few words."""

from collections.abc import Iterator

from pipelines.config import (
    LIKELIHOOD,
    AnchorConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
    Training,
)
from pipelines.training.nets import options


def method(config: Training) -> str:
    """Returns the line: loss; preprocessing; flow; optimiser."""
    data = _preprocessing(config.preprocess) + "".join(_changes(config.train))
    parts = (" + ".join(_terms(config)), data, _flow(config.model), _optimiser(config.train))
    return "; ".join(parts)


def _terms(config: Training) -> Iterator[str]:
    name, anchor, extra = config.objective.name, config.anchor, config.stabilise
    details = [*_options(config.objective)]
    if name == "lazy_ml":
        details.append(f"normaliser {_rule(anchor)}")
    inside = f" ({', '.join(details)})" if details else ""
    yield f"{config.objective_weight:g} × {name}{inside}"
    if name not in LIKELIHOOD and anchor.weight:
        yield f"{anchor.weight:g} × anchor ({_rule(anchor)})"
    if extra.low_energy:
        yield f"{extra.low_energy:g} × energy"
    if extra.latent_mean:
        yield f"{extra.latent_mean:g} × latent mean"
    if extra.finish:
        yield f"the last {extra.finish:.0%} by ml"


def _options(objective: ObjectiveConfig) -> Iterator[str]:
    """Yields what the objective is told: its noise or step, slices, and how seldom it is used."""
    used = objective.options
    if "sigma" in used:
        yield _noise(objective)
    for name, symbol in (("epsilon", "ε"), ("step", "step"), ("reconstruction", "λ")):
        if name in used:
            yield f"{symbol} = {used[name]:g}"
    if used.get("slices", 1) > 1:
        yield f"{objective.slices} slices"
    if used.get("every", 1) > 1:
        yield f"in one of {objective.every} steps"


def _noise(objective: ObjectiveConfig) -> str:
    if objective.sigma_end is None:
        return f"σ = {objective.sigma:g}"
    count = f", {objective.levels} levels" if objective.levels > 1 else " over the training"
    return f"σ from {objective.sigma:g} to {objective.sigma_end:g}{count}"


def _rule(anchor: AnchorConfig) -> str:
    early = f", sooner at drift {anchor.tolerance:g}" if anchor.tolerance else ""
    return f"refreshed every {anchor.interval} steps{early}"


def _preprocessing(config: PreprocessConfig) -> str:
    names = {"none": "plain", "standardise": "standardised", "whiten": "whitened"}
    where = "" if config.match_after else ", scores matched before preprocessing"
    divided = "" if config.scale == 1 else f", logit / {config.scale:g}"
    extended = ", extended logit" if config.extended else ""
    normal = ", directions made normal" if config.gaussianise else ""
    return f"{names[config.normalise]} data{divided}{extended}{normal}{where}"


def _changes(train: TrainConfig) -> Iterator[str]:
    if train.augment != "none":
        yield f", training images changed as by {train.augment}"
    if train.noise:
        yield f", training rows with noise {train.noise:g}"


def _flow(model: ModelConfig) -> str:
    chosen = (f"{name.replace('_', ' ')} {value}" for name, value in options(model).items())
    return f"{model.architecture} flow ({', '.join(chosen)})"


def _optimiser(train: TrainConfig) -> str:
    at = f" at D = {train.lr_width}" if train.lr_width else ""
    rate = f"{train.optimizer} {train.lr:g}{at} {train.schedule}"
    if train.schedule == "multistep":
        every = f", every {train.epoch} steps" if train.epoch else ""
        rate += f" ({train.milestones} × {train.gamma:g}{every})"
    decay = f", weight decay {train.weight_decay:g}" if train.weight_decay else ""
    clip = "" if train.clip is None else f", gradient at most {train.clip:g}"
    return f"{rate}{decay}{clip}, batch {train.batch_size}, EMA {train.ema_decay:g}"


def short_net(model: ModelConfig) -> str:
    """Returns the architecture and its depth, as ``dense-3``."""
    depth = options(model).get("depth")
    return model.architecture if depth is None else f"{model.architecture}-{depth}"


def short_loss(config: Training) -> str:
    """Returns the objective, its noise and the anchor beside it, as ``dsm σ 0.3 + anchor``."""
    objective = config.objective
    anchored = objective.name not in LIKELIHOOD and config.anchor.weight
    return objective.name + _short_noise(config) + (" + anchor" if anchored else "")


def _short_noise(config: Training) -> str:
    used = config.objective.options
    if "sigma" not in used:
        return ""
    end = used["sigma_end"]
    return f" σ {used['sigma']:.3g}" + ("" if end is None else f" … {end:.3g}")
