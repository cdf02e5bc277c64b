"""The page of a search."""

__all__ = ["TEMPLATE", "page"]

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pipelines.config_files import dump
from pipelines.method import method
from tuning.config import TuneConfig
from tuning.records import BASE, Record

TEMPLATE = Path(__file__).with_name("search.html.j2")


def page(
    config: TuneConfig,
    trials: Sequence[Record],
    numbers: Mapping[str, Any],
    best: Record,
    images: Mapping[str, Path],
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        config: The search and its base.
        trials: Its trials.
        numbers: The verdict and what it rests on.
        best: The winner.
        images: PNG files by name of the figure.
    """
    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template(TEMPLATE.name)
    return template.render(
        config=config,
        trials=sorted(trials, key=lambda r: (r.nll is None, r.nll, r.number)),
        numbers=numbers,
        best=best,
        base=BASE,
        methods={setting["number"]: _method(trials, setting) for setting in numbers["settings"]},
        text=dump(config),
        images={name: base64.b64encode(p.read_bytes()).decode() for name, p in images.items()},
    )


def _method(trials: Sequence[Record], setting: Mapping[str, Any]) -> str:
    record = next(record for record in trials if record.number == setting["number"])
    return method(record.training)
