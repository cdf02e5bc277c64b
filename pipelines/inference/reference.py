r"""Training and test rows that other rows are compared with, and ranks and p-values.

Among n known log-densities, of which r are at most that of a row x, the rank of x is r and its
p-value is :math:`(1 + r) / (1 + n)`. It tests if x is another row of the same distribution, and
rejects the least likely rows. With rows that training has not seen it is exact for every flow: a
new row has a p-value up to α with probability at most α. Training rows, which are mostly more,
give a finer resolution, and p-values that are too small if the flow overfits.

Source: Algorithmic Learning in a Random World (Vovk, Gammerman, Shafer, 2005), conformal
prediction, with the log-density as the score.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ebflow.checkpoint import read
from ebflow.errors import BadInput
from ebflow.evaluation import log_probs
from ebflow.files import load_tensors, save_tensors
from ebflow.flow import Flow
from ebflow.tables.batches import Split
from ebflow.tables.completion import Completed
from ebflow.tables.rows import Rows
from pipelines.inference import REFERENCE

# Most rows of a split, and most values of the training rows that are saved.
ROWS, VALUES = 10_000, 1 << 22


@dataclass(frozen=True)
class Reference:
    """Rows that other rows are compared with."""

    train: Tensor  #: Log-densities of training rows in nats, ascending, with shape (n,)
    test: Tensor  #: Those of test rows
    #: Training rows, as the flow's data are numbered, with shape (r, D); NaN if missing
    rows: Tensor
    context: Tensor  #: Their contexts, with shape (r, C); C is 0 without any

    @classmethod
    def of(cls, flow: Flow, train: Split, test: Split, *, batch_size: int = 1000) -> "Reference":
        """Measures random rows of a training and of a test split, at most ``ROWS`` of each.

        The dequantization noise is that of scores.
        """
        found = []
        for split in (train, test):
            rows = Rows(*split.some(ROWS, 0), levels=split.levels)
            found.append(log_probs(flow, rows, batch_size=batch_size).sort().values)
        x, context = (train.split if isinstance(train, Completed) else train).some(ROWS, 0)
        most = VALUES // train.width
        context = x.new_zeros(len(x), 0) if context is None else context
        return cls(*found, x.flatten(1)[:most].clone(), context[:most].clone())

    def save(self, folder: Path, checkpoint: Path) -> None:
        """Writes the file into a folder, as one of a checkpoint."""
        path, state = folder / REFERENCE, identity(checkpoint)
        save_tensors(vars(self), path, state=state)

    @classmethod
    def load(cls, checkpoint: Path) -> "Reference | None":
        """Returns the rows beside a checkpoint; None if there are none.

        Raises:
            BadInput: If the file is corrupt, or of other weights.
        """
        path = checkpoint / REFERENCE
        if not path.is_file():
            return None
        try:
            tensors, metadata = load_tensors(path)
            state = metadata["state"]
        except (SafetensorError, LookupError) as error:
            raise BadInput(f"is corrupt ({error})", file=path, expected="safetensors") from error
        if {*tensors} != {field.name for field in fields(cls)}:
            hint = "Run ebflow run density again"
            raise BadInput(file=path, found="no rows", expected="training rows", hint=hint)
        if state != identity(checkpoint):
            problem = "rows of other weights"
            raise BadInput(file=path, found=problem, expected="those of the checkpoint")
        return cls(**tensors)


def ranks(reference: Tensor, log_probs: Tensor) -> Tensor:
    """Returns how many of (n,) ascending log-densities are at most each of (N,) others."""
    return torch.searchsorted(reference, log_probs, right=True)


def p_values(reference: Tensor, log_probs: Tensor) -> Tensor:
    """Returns (1 + rank) / (1 + n) in float64, with shape (N,)."""
    return (1 + ranks(reference, log_probs)).double() / (1 + len(reference))


def identity(checkpoint: Path) -> str:
    """Returns the SHA-256 of a checkpoint's weights and of all that is known of them."""
    return read(checkpoint, only=()).state["sha256"]["state"]
