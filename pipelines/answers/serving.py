"""``ebflow serve``: a trained flow behind MLflow's own server, on this machine alone."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import store
from pipelines.answers import OfModel
from pipelines.cli.parsing import parse
from pipelines.cli.ui import check_port, served
from pipelines.cluster.logs import writing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipelines.answers.models import Model

ROWS = 4
"""Rows of the example in the model."""


@dataclass(frozen=True)
class Serve(OfModel):
    """Serves log-densities on this machine (127.0.0.1) until Ctrl-C, by MLflow's scoring server.

    It answers POST /invocations, of {"dataframe_split": {"columns": [...], "data": [[...]]}} for a
    table, whose columns are found by their names, and of {"instances": [[...]]} for arrays.
    """

    port: int = 5001
    """port, 1 … 65535"""


def run(words: Sequence[str]) -> int:
    """Serves a model until Ctrl-C."""
    options = parse(Serve, words, "ebflow serve")
    check_port(options.port)
    from pipelines.answers.models import opened

    log_file = store.home() / "logs" / "serve.log"
    with opened(options.model) as model, writing(log_file), _served(options.model, model) as uri:
        print(f"{options.model} at http://127.0.0.1:{options.port}/invocations (Ctrl-C ends it)")
        server = ["models", "serve", "--model-uri", uri, "--env-manager", "local"]
        return served(server, options.port, log_file)


@contextmanager
def _served(name: str, model: "Model") -> Iterator[str]:
    """Gives a place from which MLflow loads a model: its files, or a folder written of them."""
    from pipelines.answers.models import REGISTERED
    from pipelines.tracking import save_model

    if name.startswith(REGISTERED):
        yield str(model.folder.parents[1])
        return
    with tempfile.TemporaryDirectory(prefix="ebflow-serve-") as scratch:
        folder = Path(scratch) / "model"
        save_model(folder, model.folder, _examples(model))
        yield str(folder)


def _examples(model: "Model") -> "pd.DataFrame | np.ndarray":
    """Returns a few samples."""
    from pipelines.answers.contexts import spread
    from pipelines.answers.files import examples
    from pipelines.answers.sampling import drawn

    return examples(model, *next(drawn(model, ROWS, 0, spread(model, ROWS))))
