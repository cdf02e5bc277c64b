"""Of a test."""

import torch


def threads(config, *, run):
    """Writes the number of torch's threads."""
    (run.output / "value.txt").write_text(str(torch.get_num_threads()))
