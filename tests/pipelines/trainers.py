"""Trainers for tests: a configuration on prepared data, whose chain is fitted on the spot."""

from pipelines.training import trainers
from pipelines.training.preprocessing import fitted


def build(config, dataset, **options):
    return trainers.build(config, dataset, fitted(config.chain, dataset), **options)
