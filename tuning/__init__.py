"""Searches of settings: Ray Tune and Optuna around the pipelines' own training."""

__all__ = ["TEMPLATE"]

from pathlib import Path

TEMPLATE = Path(__file__).with_name("search.html.j2")
"""Of the page of a search."""
