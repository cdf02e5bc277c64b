"""Searches around the study of gradient alignment: a classifier's regularizer and its noise."""
