r"""Log-densities of training and test rows, and the ranks and p-values of other rows.

Among n known log-densities, of which r are at most that of a row x, the rank of x is r and its
p-value is :math:`(1 + r) / (1 + n)`. It tests if x is another row of the same distribution, and
rejects the least likely rows. With rows that training has not seen it is exact for every flow: a
new row has a p-value up to α with probability at most α. Training rows, which are mostly more,
give a finer resolution, and p-values that are too small if the flow overfits.

Source: Algorithmic Learning in a Random World (Vovk, Gammerman, Shafer, 2005), conformal
prediction, with the log-density as the score.

The log-densities lie beside a checkpoint's weights, and name them: those of other weights are
refused.
"""

from dataclasses import dataclass
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
from ebflow.tables.rows import Rows
from pipelines.inference import REFERENCE

ROWS = 10_000
"""Most rows of a split."""


@dataclass(frozen=True)
class Reference:
    """Log-densities of rows of the data that a flow was trained on.

    Attributes:
        train: Those of training rows in nats, ascending, with shape (n,).
        test: Those of test rows.
    """

    train: Tensor
    test: Tensor

    @classmethod
    def of(cls, flow: Flow, train: Split, test: Split, *, batch_size: int = 1000) -> "Reference":
        """Measures random rows of a training and of a test split, at most ``ROWS`` of each.

        With one draw of the dequantization noise, as rows are scored.
        """
        return cls(*(_measured(flow, split, batch_size) for split in (train, test)))

    def save(self, folder: Path, checkpoint: Path) -> None:
        """Writes the file into a folder, as one of a checkpoint."""
        path, state = folder / REFERENCE, identity(checkpoint)
        save_tensors({"train": self.train, "test": self.test}, path, state=state)

    @classmethod
    def load(cls, checkpoint: Path) -> "Reference | None":
        """Returns what lies beside a checkpoint; None where nothing does.

        Raises:
            BadInput: if it is damaged, or of other weights.
        """
        path = checkpoint / REFERENCE
        if not path.is_file():
            return None
        try:
            known, metadata = load_tensors(path)
            found, state = cls(known["train"], known["test"]), metadata["state"]
        except (SafetensorError, LookupError) as error:
            raise BadInput(f"{path} is corrupt ({error}); expected safetensors") from error
        if state != identity(checkpoint):
            raise BadInput(f"{path}: found log-densities of other weights, expected these ones'")
        return found


def _measured(flow: Flow, split: Split, batch_size: int) -> Tensor:
    x, context = next(split.shuffled(min(len(split), ROWS), seed=0))
    found = log_probs(flow, Rows(x, context, levels=split.levels), batch_size=batch_size)
    return found.sort().values


def ranks(known: Tensor, log_probs: Tensor) -> Tensor:
    """Returns how many of (n,) ascending log-densities are at most each of (N,) others."""
    return torch.searchsorted(known, log_probs, right=True)


def p_values(known: Tensor, log_probs: Tensor) -> Tensor:
    """Returns (1 + rank) / (1 + n) in float64, with shape (N,)."""
    return (1 + ranks(known, log_probs)).double() / (1 + len(known))


def identity(checkpoint: Path) -> str:
    """Returns the SHA-256 of a checkpoint's weights and of all that is known of them."""
    return read(checkpoint, only=()).state["sha256"]["state"]
