"""Every test: one thread, a store of its own, no telemetry, no log of MLflow on the terminal."""

import gc
import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# What a shell starts in the background ignores SIGINT, and so does what that starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # while modules are imported and tests collected, which all stay


def pytest_configure(config):
    """Sorts the files: pytest 9.1 loses a folder's fixtures if another's file is in between."""
    config.args.sort()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def reproducible():
    """Sums in one order, random numbers and a type, whatever a test before this one left."""
    import torch

    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items):
    """Orders tests, and groups them for the processes of ``pytest -n``.

    Whole systems, which take longest, come first. A process runs a whole file, with the fixtures
    that it shares. One process also runs all tests of the one run that several files look at.
    Tests of whole systems are slow ones.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/pipelines", "tests/tuning")))
    for item in items:
        group = _group(item)
        item.add_marker(pytest.mark.xdist_group(group))
        if group == "digits" and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.system)
        if item.get_closest_marker("system"):
            item.add_marker(pytest.mark.slow)


def _group(item):
    made = item._fixtureinfo.name2fixturedefs.get("digits")
    shared = made and made[-1].baseid == "tests/pipelines"
    return "digits" if shared else str(item.path)
