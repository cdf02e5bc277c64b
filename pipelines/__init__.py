"""Pipelines on Ray, chained by redun, tracked by MLflow."""
