"""The reports of a run: to MLflow, to the user's terminal, and to a file of its artefact."""
