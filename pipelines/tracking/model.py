"""The MLflow model of a checkpoint, as code: MLflow copies this file beside the checkpoint."""

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext


class LogDensity(PythonModel):
    """Gives the exact log-density of raw examples, in nats."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the flow, preprocessing included."""
        import ebflow

        self.flow = ebflow.load(context.artifacts["checkpoint"]).eval()

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict | None = None,
    ) -> np.ndarray:
        """Returns log p(x) of examples with shape (N, *event), with shape (N,).

        Integer data are dequantised by one draw that is the same at every call.
        """
        import torch

        x = torch.as_tensor(np.asarray(model_input))
        with torch.no_grad():
            return self.flow.log_prob(x).double().numpy()


mlflow.models.set_model(LogDensity())
