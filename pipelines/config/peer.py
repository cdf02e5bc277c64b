"""Densities of other packages, beside a flow."""

__all__ = ["PEERS", "PeerConfig", "Peer"]

from typing import Literal, get_args

from pydantic import Field

from pipelines.config.section import Section

Peer = Literal["maf", "nsf", "gmm", "kde"]

PEERS: tuple[str, ...] = get_args(Peer)


class PeerConfig(Section):
    """A density of another package, fitted as its users do."""

    name: Peer = Field(
        "gmm",
        description="maf, nsf: zuko's flows; gmm: scikit-learn's mixture of Gaussians, its number "
        "by validation; kde: Gaussian kernels, their width by validation",
    )
    seed: int = Field(0, ge=0, description="seed of starts and batches")
    seconds: float | None = Field(
        None, gt=0, description="training seconds, validations not counted; None: the steps alone"
    )
    steps: int = Field(1_000_000, ge=1, description="steps of maf and nsf at most")
    batch_size: int = Field(256, ge=1, description="rows a step of maf and nsf at most")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam, constant")
    threads: int = Field(1, ge=1, description="threads")

    @property
    def needs(self) -> dict[str, float]:
        """The CPU cores that it keeps busy."""
        return {"CPU": self.threads}
