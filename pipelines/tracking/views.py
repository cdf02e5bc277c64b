"""MLflow's pages: how an experiment looks there, and where its table of runs is."""

import json
from collections.abc import Iterator

from mlflow import MlflowClient

COLUMNS = (
    "attributes.`Created`",
    "attributes.`Duration`",
    "metrics.`test/nll`",
    "metrics.`test/bpd`",
    "tags.`ebflow.data`",
    "tags.`ebflow.objective`",
)
VIEW = "mlflow.sharedViewState.ebflow"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    VIEW: json.dumps({"selectedColumns": COLUMNS}),
}
"""Tags of a new experiment: it is about training, and a shared view chooses the columns."""

QUERY = "workflowType=machine_learning&viewStateShareKey=ebflow"


def links(client: MlflowClient, address: str) -> Iterator[tuple[str, str]]:
    """Yields name and URL of the table of runs of each experiment that has the shared view."""
    for found in client.search_experiments(order_by=["name ASC"]):
        if VIEW in found.tags:
            yield found.name, f"{address}/#/experiments/{found.experiment_id}/runs?{QUERY}"
