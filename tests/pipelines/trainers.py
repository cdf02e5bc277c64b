"""Trainers for tests: a configuration on prepared data, whose chain is fitted on the spot."""

from pipelines import training
from pipelines.front import fitted


def build(config, dataset, **options):
    return training.build(config, dataset, fitted(config.front, dataset), **options)
