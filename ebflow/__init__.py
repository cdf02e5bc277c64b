"""Unnormalised log-densities trained by matching their score."""

__version__ = "0.1.0"
