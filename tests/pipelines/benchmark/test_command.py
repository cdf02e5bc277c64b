"""What ``ebflow bench`` prints. No time is asserted."""

import io
import re
from typing import get_args

import pytest
import torch
from rich.console import Console

from ebflow.objectives import OBJECTIVES
from pipelines.benchmark import command
from pipelines.benchmark.timing import Timing
from pipelines.cli.options import Bench, Objective


@pytest.fixture
def told(monkeypatch):
    """Returns a function that runs the command and returns what it prints."""
    monkeypatch.setattr(command, "measured_peak", lambda: 1e9)

    def run(**options):
        console = Console(file=io.StringIO(), width=120)
        threads = torch.get_num_threads()
        command.bench(Bench(batch=4, seconds=0.001, threads=threads, **options), console)
        return console.file.getvalue()

    return run


def labels(text):
    """Returns the first column of a table, its heading left out."""
    return re.findall(r"^│ (.*?) +│", text, re.MULTILINE)


def test_every_objective_can_be_chosen():
    assert set(get_args(Objective)) == set(OBJECTIVES)


def test_objectives_that_are_asked_for(told):
    text = told(sizes=(4,), objectives=("dsm", "fd_ssm"))
    assert labels(text) == ["dsm", "dsm + anchor", "fd_ssm"]
    assert "exact ML from" not in text
    assert re.search(r"^memory of these cases at their peak: (at most )?\d+\.\d GiB$", text, re.M)


def test_activations_are_timed_in_turn(told):
    text = told(sizes=(4,), objectives=("ml",), activations=("smooth_leaky_relu", "spline"))
    assert labels(text) == ["ml, smooth_leaky_relu", "ml, spline"]


def test_convolutions_have_a_share_of_the_peak(told):
    text = told(architecture="convolutional", images=((1, 4, 4, 3),), objectives=("dsm",))
    assert labels(text) == ["dsm, zero", "dsm, circular", "dsm, masked"]
    assert len(re.findall(r"\d%", text)) == 3


def test_growth_and_crossovers(told, monkeypatch):
    powers = {"ml": 2.8, "dsm": 2.0}

    def benchmark(cases, **options):
        size = int(next(iter(cases)).flow.args[0])
        return [
            Timing(size, c.label, (size / 1000) ** powers[c.label], 0.0, 1, 0.5, 1.0)
            for c in cases
            if c.label in powers
        ]

    monkeypatch.setattr(command, "benchmark", benchmark)
    text = told(sizes=(784, 900, 1200, 1536))
    assert "step time of ml grows as D^2.80 (95 %: 2.80 … 2.80)" in text
    assert "a step of dsm is as fast as one of exact ML from D = 1000 on" in text
    assert text.count("exact ML from") == 1
