"""The density pipeline: data, preprocessing, training, likelihood, a page."""

RESULTS = "results.json"
"""File of what a report says: numbers, verdict, columns, warnings, fit."""
