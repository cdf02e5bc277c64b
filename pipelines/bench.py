"""``ebflow bench``: step times of every objective."""

__all__ = ["Bench", "run"]

from collections.abc import Sequence
from dataclasses import dataclass

from ebflow.errors import BadInput
from pipelines.parsing import parse


@dataclass(frozen=True)
class Bench:
    """Times a training step of every objective on this machine, beside its sgemm peak."""

    sizes: tuple[int, ...] = (64, 256, 784, 1536, 3072)
    """dimensions D"""
    depth: int = 2
    """number of linear layers L"""
    batch: int = 100
    """batch size B"""
    seconds: float = 2.0
    """least time given to every row, s"""
    threads: int = 0
    """threads; 0: as torch chooses"""


def run(words: Sequence[str]) -> int:
    """Prints a line for every timing, as it comes."""
    options = parse(Bench, words, "ebflow bench")
    _check_bench(options)
    import torch

    from ebflow.benchmark import benchmark

    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"L = {options.depth}, B = {options.batch}, {torch.get_num_threads()} threads, float32")
    print(
        f"{'D':>5}  {'objective':<18} {'ms':>9} {'median':>9} {'GEMMs':>5} {'peak':>5} {'ML/':>6}"
    )
    for row in benchmark(
        options.sizes, depth=options.depth, batch=options.batch, seconds=options.seconds
    ):
        print(
            f"{row.size:>5}  {row.objective:<18} {row.ms:>9.3f} {row.median_ms:>9.3f} "
            f"{row.gemms:>5} {row.peak_fraction:>5.0%} {row.ml_ratio:>6.2f}",
            flush=True,
        )
    return 0


def _check_bench(options: Bench) -> None:
    if not options.sizes:
        raise BadInput("--sizes: found none, expected at least one")
    for name, value in (("sizes", min(options.sizes)), ("depth", options.depth)):
        if value < 1:
            raise BadInput(f"--{name}: found {value}, expected at least 1")
    if options.batch < 2 or options.threads < 0 or not options.seconds > 0:
        raise BadInput("--batch, --threads, --seconds: expected at least 2, at least 0, above 0")
