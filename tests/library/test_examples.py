"""The examples in docstrings run, and say what they say."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

import ebflow

MODULES = [
    "ebflow",
    *(f"ebflow.{m.name}" for m in pkgutil.iter_modules(ebflow.__path__)),
    "ebflow.bijections.wrap",
    "ebflow.tables.detect",
    "ebflow.tables.schema",
]
STUDIES = ("ebflow.alignment",)


def examples(name):
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder().find(module, name) if test.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in STUDIES])
def test_examples_run(name, single_precision):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    names = {"ebflow": ebflow, "torch": torch, "np": np, "x": x, "c": x[:, :1], "X": x.numpy()}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for test in examples(name):
            test.globs = dict(names)
            runner.run(test)
    assert runner.failures == 0


def test_what_people_call_first_has_an_example():
    named = {test.name for name in MODULES for test in examples(name)}
    assert {"ebflow", "ebflow.fitting.fit", "ebflow.flow.Flow", "ebflow.sklearn",
            "ebflow.checkpoint.save", "ebflow.loss.Loss", "ebflow.density.EnergyFunction",
            "ebflow.objectives"} <= named  # fmt: skip
