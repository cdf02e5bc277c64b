"""Trained flows as versions of a registered MLflow model."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines.tracking.backend import EXISTS, default_store, mlflow_errors, uri


def register(run_id: str, name: str, alias: str | None) -> str:
    """Makes the model that a run logged a version of ``name``, unless it is one already.

    Arguments:
        run_id: The run of a pipeline.
        name: Name of the registered model, made if need be.
        alias: Name that is to point to this version.

    Returns:
        The version and the URI by which MLflow loads it.
    """
    client = MlflowClient(uri())
    with mlflow_errors(), default_store(client.tracking_uri):
        version = _version(client, run_id, name).version
        if alias is None:
            return f"{name}, version {version}: models:/{name}/{version}"
        client.set_registered_model_alias(name, alias, version)
        return f"{name}, version {version}: models:/{name}@{alias}"


def _version(client: MlflowClient, run_id: str, name: str) -> ModelVersion:
    _make(client, name)
    found = [v for v in client.search_model_versions(f"name = '{name}'") if v.run_id == run_id]
    if found:
        return found[0]
    model = client.get_run(run_id).outputs.model_outputs[0].model_id
    return client.create_model_version(
        name, f"models:/{model}", run_id=run_id, model_id=model, await_creation_for=None
    )


def _make(client: MlflowClient, name: str) -> None:
    """Makes the registered model, unless it is there."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise
