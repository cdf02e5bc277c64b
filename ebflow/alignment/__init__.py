"""Classifiers as implicit densities: their scores, what shapes them, and how well they align."""
