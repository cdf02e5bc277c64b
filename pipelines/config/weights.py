"""The factor of score matching where it is left open: a module of its own, as trainings depend
on it."""

__all__ = ["open_weight"]

SLICED_WEIGHT = 0.01


def open_weight(name: str, *, sigma: float, levels: int, anchored: bool) -> float:
    """Returns what brings an objective to the size of the anchor beside it.

    Denoising score matching is of the size D / σ²; with several noises its losses are weighed
    by σ² already. The sliced forms have the size of the squared score, which whitening makes D,
    and a heavy tail: 0.01 keeps it from the anchor.
    """
    if not anchored or levels > 1:
        return 1.0
    return sigma**2 if name == "dsm" else SLICED_WEIGHT
