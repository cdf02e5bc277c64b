"""Stages on Ray, put together into graphs that redun evaluates.

A stage is cached in the store by its key: a hash of its code, its configuration and the content
of its inputs. Stages that the store has not run as tasks of Ray, which starts at the first of
them. Only ``graphs.py`` imports redun.
"""
