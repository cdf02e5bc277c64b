"""The packaged laws that look like data, and the command that makes their files.

    python -m ebflow.complexity.fitted digits patches
    python -m ebflow.complexity.fitted mnist --source mnist.parquet

Levels of pixels get uniform noise of one level. Of the rows a sixth, drawn at random, are held
out, and decide how many components there are.
"""
