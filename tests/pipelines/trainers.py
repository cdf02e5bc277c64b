"""Trainers for tests: a configuration on prepared data, behind a preprocessing fitted to them."""

from pipelines.training.flow_training import build_training
from pipelines.training.preprocessing import fit_preprocessing


def build(config, dataset, **options):
    return build_training(
        config, dataset, fit_preprocessing(config.preprocess_fit, dataset), **options
    )
