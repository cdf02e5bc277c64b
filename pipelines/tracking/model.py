"""The MLflow model of a checkpoint, as code: MLflow copies this file beside the checkpoint."""

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext


class LogDensity(PythonModel):
    """A model that predicts the exact log-density of raw examples, in nats."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the flow, preprocessing included."""
        import ebflow

        self.flow = ebflow.load(context.artifacts["checkpoint"])

    # MLflow would take a hint on the input for a schema.
    def predict(self, model_input) -> np.ndarray:  # noqa: ANN001
        """Returns log p(x) of N examples, with shape (N,).

        Integer data are dequantized by one draw that is the same at every call.

        Arguments:
            model_input: A frame, whose columns are found by their names, those of contexts too,
                or examples with shape (N, *event), which are taken by position.

        Raises:
            ValueError: If a column is missing, the width another, a value not finite, or a
                category no level of the training rows.
        """
        from ebflow.evaluation import log_probs

        examples = self._examples(model_input)
        contexts = None if examples is model_input or not self.flow.context else model_input
        return log_probs(self.flow, examples, context=contexts).numpy()

    def _examples(self, model_input):  # noqa: ANN001, ANN202
        """Returns the examples in a column of lists, such as images, or the input itself."""
        notes = {} if self.flow.columns is None else self.flow.columns.notes
        name = notes.get("column")
        if name is None or name not in getattr(model_input, "columns", ()):
            return model_input
        rows = np.stack([np.asarray(cell).reshape(-1) for cell in model_input[name]])
        exact = rows.astype(notes["dtype"])
        return exact if (exact == rows).all() else rows


mlflow.models.set_model(LogDensity())
