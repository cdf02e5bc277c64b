"""``ebflow ui``: MLflow on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from pipelines import store
from pipelines.store.paths import user_cache, without_password
from pipelines.tracking.server import check_port, served


@dataclass(frozen=True)
class Ui:
    """Serves MLflow on this machine (127.0.0.1) until Ctrl-C."""

    port: int = 5000
    """port, 1 … 65535"""


def run(words: Sequence[str]) -> int:
    """Serves MLflow until Ctrl-C."""
    port = tyro.cli(Ui, prog="ebflow ui", args=words).port
    check_port(port)
    from pipelines.tracking import backend, history

    if (uri := backend.uri()) != backend.store_uri():
        shown = without_password(uri)
        print(f"runs are tracked at MLFLOW_TRACKING_URI = {shown}: look there")
        return 0
    history.opened()
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow at {address} (Ctrl-C ends it)")
    server = ["server", "--workers", "1", "--backend-store-uri", uri]
    server += ["--artifacts-destination", str(store.home() / "mlartifacts")]
    return served(server, port, user_cache() / "ui.log")  # the store may be another's
