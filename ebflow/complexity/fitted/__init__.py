"""The distributions of the library that resemble data, and the command that fits them.

    python -m ebflow.complexity.fitted digits patches
    python -m ebflow.complexity.fitted mnist --source mnist.parquet

Grey levels get uniform noise of one level. A random sixth of the rows is held out and selects the
number of components.
"""
