"""Trainers for tests: a configuration on prepared data, whose chain is fitted on the spot."""

from pipelines.training import loop
from pipelines.training.preprocessing import fitted


def build(config, dataset, **options):
    return loop.build(config, dataset, fitted(config.front, dataset), **options)
