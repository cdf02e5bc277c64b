"""Searches of settings: Ray Tune and Optuna around the pipelines' own training."""
