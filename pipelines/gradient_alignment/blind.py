"""Class-blind densities: what any classifier's logits can be given without a change of it."""

from pathlib import Path

from ebflow import mixtures
from ebflow.alignment.reference import Normalised
from ebflow.checkpoint import load

GAUSSIAN, FLOW = "gaussian.safetensors", "flow"


def read(folder: Path, device: str = "cpu") -> dict[str, Normalised]:
    """Returns the densities that the stage kept, by name: ``gaussian`` and ``flow``."""
    gaussian, flow = mixtures.load(folder / GAUSSIAN).to(device), load(folder / FLOW).to(device)
    return {"gaussian": gaussian, "flow": flow.requires_grad_(False)}
