"""MLflow's pages as a person sees them: a real server, a real headless browser.

``EBFLOW_SCREENSHOTS`` names the folder of the pictures; else they are the test's own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from .nodes import BIN
from .processes import answers, free_port, wait

CHROMIUM = shutil.which("chromium")
# No network but the server; the clock of the page runs as fast as the page allows
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1600,1000", "--virtual-time-budget=30000",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]


@pytest.fixture(scope="module")
def address(digits):
    """Serves the finished run by the command that was printed after it."""
    port = free_port()
    command = re.search("to look +(mlflow ui .*)", digits.printed)[1]
    process = subprocess.Popen(
        [*shlex.split(command), "--port", str(port)],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    wait("MLflow", lambda: answers(f"{url}/health"), process=process)
    yield url
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.fixture(scope="module")
def place(digits, address):
    """The client, the finished run and the server's address."""
    client = mlflow.MlflowClient(f"sqlite:///{digits.home / 'mlflow.db'}")
    run = client.get_run(digits.summary()["mlflow_run_id"])
    return client, run, address


@pytest.fixture
def visit(tmp_path):
    """Opens a page twice: for its DOM, and for a picture of it."""
    folder = Path(os.environ.get("EBFLOW_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def open_page(url, name):
        picture = folder / f"{name}.png"
        chromium(tmp_path / "picture", f"--screenshot={picture}", url)
        return chromium(tmp_path / "dom", "--dump-dom", url), Image.open(picture)

    return open_page


def chromium(profile, *words):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout


def colours(picture):
    """Returns how many colours a picture has: few if nothing was drawn."""
    return len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0))


def test_the_table_of_runs(place, visit):
    _, run, address = place
    link = f"{address}/#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning"
    dom, picture = visit(link, "runs")
    assert "digits · lazy_ml · dense" in dom
    assert colours(picture) > 200


def page(run, address, tab=""):
    place = f"{address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"{place}{tab}?workflowType=machine_learning"


def test_a_run_tells_what_it_is_and_how_to_repeat_it(place, visit):
    dom, _ = visit(page(*place[1:]), "run")
    assert "An energy-based flow of <strong>digits</strong>" in dom
    assert "full-covariance Gaussian" in dom
    assert re.search(r"ebflow run density[^<]* --train.steps", dom)


def test_the_chart_of_a_metric(place, visit):
    client, run, address = place
    training = client.get_run(run.data.tags["ebflow.stage.train"])
    query = {
        "runs": [training.info.run_id],
        "metric": "val/nll",
        "experiments": [run.info.experiment_id],
        "plot_metric_keys": ["val/nll"],
    }
    words = urllib.parse.urlencode({name: json.dumps(value) for name, value in query.items()})
    dom, picture = visit(f"{address}/#/metric?{words}", "metric")
    assert "js-plotly-plot" in dom and repr(training.data.metrics["val/nll"])[:9] in dom
    assert colours(picture) > 200


def test_a_figure(place, visit):
    dom, picture = visit(page(*place[1:], "/artifacts/figures/training.png"), "figure")
    assert "figures/training.png" in dom and "<img" in dom
    assert colours(picture) > 200


def test_the_report(place, visit):
    dom, picture = visit(page(*place[1:], "/artifacts/report.html"), "report")
    assert re.search(r'<iframe src="blob:[^>]*mlflow-html-iframe', dom)
    assert colours(picture) > 1000
