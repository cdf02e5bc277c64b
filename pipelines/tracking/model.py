"""The MLflow model of a checkpoint, as code: MLflow copies this file beside the checkpoint."""

import mlflow
import numpy as np
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext


class Refused(MlflowException, ValueError):
    """A ``ValueError`` of the flow, whose line a scoring server tells."""


class LogDensity(PythonModel):
    """Gives the exact log-density of raw examples, in nats."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the flow, preprocessing included."""
        import ebflow

        self.flow = ebflow.load(context.artifacts["checkpoint"])

    def predict(
        self,
        context: PythonModelContext,
        model_input,  # noqa: ANN001 MLflow would take a hint for a schema
        params: dict | None = None,
    ) -> np.ndarray:
        """Returns log p(x) of N examples, with shape (N,).

        Integer data are dequantized by one draw that is the same at every call.

        Arguments:
            context: The model's files.
            model_input: A frame, whose columns are found by their names, those of contexts too,
                or examples with shape (N, *event), which are taken by position.
            params: None.

        Raises:
            Refused: If a column is missing, the width another, a value not finite, or a
                category no level of the training rows.
        """
        from ebflow.evaluation import log_probs

        try:
            return log_probs(self.flow, model_input).numpy()
        except ValueError as error:
            raise Refused(str(error), error_code=INVALID_PARAMETER_VALUE) from error


mlflow.models.set_model(LogDensity())
