"""The MLflow model of a checkpoint, as code: MLflow copies this file beside the checkpoint."""

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class LogDensity(PythonModel):
    """Gives the exact log-density of raw examples, in nats."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the flow, preprocessing included."""
        import ebflow

        self.flow = ebflow.load(context.artifacts["checkpoint"])
        known = self.flow.columns or {}
        self.names, self.levels = known.get("names"), known.get("levels")

    def predict(
        self,
        context: PythonModelContext,
        model_input,  # noqa: ANN001 MLflow would take a hint for a schema
        params: dict | None = None,
    ) -> np.ndarray:
        """Returns log p(x) of N examples, with shape (N,).

        Integer data are dequantised by one draw that is the same at every call.

        Arguments:
            context: The model's files.
            model_input: A frame, whose columns are found by their names, or examples with shape
                (N, *event), which are taken by position.
            params: None.

        Raises:
            ValueError: If a column is missing, the width another, or a value not finite.
        """
        from ebflow.data.loader import Rows
        from ebflow.evaluation import log_probs
        from ebflow.fitting import as_tensor

        x = as_tensor(self._ordered(model_input), "x")[0]
        rows = Rows(self.flow.as_events(x), levels=self.levels, name="x")
        return log_probs(self.flow, rows).numpy()

    def _ordered(self, found: pd.DataFrame | np.ndarray) -> np.ndarray:
        """Returns the columns of the flow, in its order."""
        if self.names and isinstance(found, pd.DataFrame):
            if missing := [name for name in self.names if name not in found.columns]:
                raise ValueError(f"x: found no column {', '.join(missing)}, expected {self.names}")
            found = found[self.names].astype("float64")
        return np.asarray(found)


mlflow.models.set_model(LogDensity())
