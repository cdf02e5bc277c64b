"""Searches around the study of gradient alignment: a classifier's regulariser and its noise."""
