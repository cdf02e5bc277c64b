"""The settings of the paper as options: each changes the training of the models that it is for.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128: network, width, epochs, λ, μ, σ, K, estimator and
clipping; and the optimizer of its code.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.models import BASELINE, models

# A study of one model of the user's own, whose options all have an effect.
STUDY = AlignmentConfig(
    scale="smoke",
    models=(BASELINE,),
    custom={"name": "score", "weight": 0.1, "estimator": "taylor"},
)

# Another value of each setting, by its option.
OTHER: Mapping[str, Any] = {
    "noise": 0.2,
    "classifier.network": "cnn",
    "classifier.hidden": 48,
    "classifier.epochs": 3,
    "classifier.batch_size": 32,
    "classifier.optimizer": "sgd",
    "classifier.lr": 0.1,
    "classifier.weight_decay": 5e-4,
    "classifier.schedule": "steps",
    "classifier.augment": "crop",
    "classifier.clip": 1.0,
    "custom.weight": 1e-3,
    "custom.stability": 1e-2,
    "custom.step": 0.01,
    "custom.slices": 4,
    "custom.estimator": "taylor_cv",
    "custom.directions": "gaussian",
    "custom.floor": 2.0,
    "custom.warmup": 0.2,
    "custom.noise": 0.3,
    "custom.clip": 2.0,
}


def without_effect() -> list[str]:
    """Returns the options in ``OTHER`` that change no training of the model ``custom``."""
    plain = models(STUDY)["custom"]
    return [option for option in OTHER if models(_changed(option))["custom"] == plain]


def _changed(option: str) -> AlignmentConfig:
    """Returns the study with another value of an option."""
    section, _, field = option.rpartition(".")
    change = {field: OTHER[option]}
    return STUDY.changed(**({section: change} if section else change))
