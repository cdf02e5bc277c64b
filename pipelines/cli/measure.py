"""``ebflow bench`` and ``ebflow curves``: options checked, then measured."""

__all__ = ["bench", "curves"]

import math
from collections.abc import Sequence

from rich.console import Console

from ebflow.errors import BadInput
from pipelines.cli.options import Bench, Curves
from pipelines.cli.parsing import parse
from pipelines.cluster import environment


def bench(words: Sequence[str]) -> int:
    """Times a step of every objective."""
    options = parse(Bench, words, "ebflow bench")
    _at_least(1, sizes=min(options.sizes, default=0), depth=options.depth, threads=options.threads)
    _at_least(1, activations=len(options.activations))
    _at_least(2, batch=options.batch)
    _check_images(options.images)
    _positive(seconds=options.seconds)
    _used_alone(options, "images", "convolutional")
    for name in ("sizes", "depth", "activations"):
        _used_alone(options, name, "dense")
    if options.huge_pages:
        environment.restart_with_huge_pages(["bench", *words])
    from pipelines.benchmark import command

    command.bench(options, Console())
    return 0


def curves(words: Sequence[str]) -> int:
    """Trains by every objective for the same time."""
    options = parse(Curves, words, "ebflow curves")
    _at_least(1, seeds=options.seeds, threads=options.threads)
    _at_least(1, validation=options.validation or 1, test=options.test or 1)
    if options.study == "objectives" and options.architecture != "dense":
        raise BadInput("--architecture: found convolutional, expected dense in study objectives")
    _positive(seconds=options.seconds, lr=options.lr)
    _used_alone(options, "kernel_size", "convolutional")
    if options.kernel_size < 1 or options.kernel_size % 2 == 0:
        raise BadInput(f"--kernel-size: found {options.kernel_size}, expected an odd number")
    environment.restart_with_huge_pages(["curves", *words])
    from pipelines.benchmark import curves

    curves.curves(options, Console())
    return 0


def _used_alone(options: Bench | Curves, name: str, architecture: str) -> None:
    """Raises BadInput if an option is set that the other architecture does not use."""
    found, default = getattr(options, name), getattr(type(options), name)
    if options.architecture != architecture and found != default:
        option = name.replace("_", "-")
        raise BadInput(
            f"--{option}: found {found}, which --architecture {options.architecture} does not "
            f"use, expected its default ({default}; it is for {architecture})"
        )


def _check_images(images: Sequence[tuple[int, int, int, int]]) -> None:
    for image in images:
        _, height, width, side = image
        if min(image) < 1 or height % 4 or width % 4 or side % 2 == 0:
            raise BadInput(
                f"--images: found {' '.join(map(str, image))}, expected channels, height and "
                "width (multiples of 4) and an odd side of the kernel"
            )


def _positive(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise BadInput(f"--{name}: found {value:g}, expected a number above 0")


def _at_least(bound: int, **options: int) -> None:
    for name, value in options.items():
        if value < bound:
            raise BadInput(f"--{name}: found {value}, expected at least {bound}")
