"""``ebflow serve``: a trained flow behind MLflow's own server, on this machine alone."""

import tempfile
from pathlib import Path

from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.inference.commands import Serve
from pipelines.inference.contexts import spread
from pipelines.inference.models import REGISTERED, Model, opened
from pipelines.inference.sampling import drawn
from pipelines.inference.tables import examples
from pipelines.tracking.models import Examples, save_model
from pipelines.tracking.server import served

ROWS = 4
"""Rows of the example in the model."""


def run(options: Serve) -> int:
    """Serves a model until Ctrl-C."""
    log_file = store.home() / "logs" / "serve.log"
    scratch = tempfile.TemporaryDirectory(prefix="ebflow-serve-")
    with opened(options.model) as model, writing(log_file), scratch as folder:
        uri = str(as_mlflow(model, Path(folder) / "model"))
        print(f"{options.model} at http://127.0.0.1:{options.port}/invocations (Ctrl-C ends it)")
        server = ["models", "serve", "--model-uri", uri, "--env-manager", "local"]
        return served(server, options.port, log_file)


def as_mlflow(model: Model, folder: Path) -> Path:
    """Returns the folder of a registered model; writes that of another."""
    if model.label.startswith(REGISTERED):
        return model.folder.parents[1]
    save_model(folder, model.folder, samples(model))
    return folder


def samples(model: Model) -> Examples:
    """Returns a few samples."""
    return examples(model, *next(drawn(model, ROWS, 0, spread(model, ROWS))))
