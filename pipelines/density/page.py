"""The page of a trained flow: warnings, the result, where it comes from, then what explains it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ebflow.tables import Column
from pipelines.data.manifest import Manifest
from pipelines.density.fit import Fit, Unlikely, is_image, names
from pipelines.density.likelihoods import Line, better, classified, lines
from pipelines.reporting import pages
from pipelines.tracking.provenance import code

TEMPLATE = Path(__file__).with_name("report.html.j2")


def page(
    results: Mapping[str, Any],
    manifest: Manifest,
    images: Mapping[str, Path],
    fit: Fit,
    least: Sequence[Unlikely],
    **made: str,
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        results: ``numbers`` (metrics of training and evaluation), ``verdict`` of the training,
            ``fit`` (lines on it), ``warnings`` (what a reader should not miss, first on the page).
        manifest: Describes the data.
        images: PNG files by name of the figure.
        fit: Test rows beside samples.
        least: The least likely test rows.
        made: How it came to be: ``command``, ``config`` (as YAML).
    """
    numbers = results["numbers"]
    shown = lines(numbers)
    given = shown if "classes" in images else []
    return pages.render(
        TEMPLATE,
        images,
        results=results,
        lines=shown,
        classes=[(line.name, *classified(line, numbers)) for line in given],
        result=_compared(better(numbers)),
        manifest=manifest,
        made=made,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        code=code(),
        fit=fit,
        least=least,
        table=[] if is_image(manifest) else _table(manifest, least),
    )


def _compared(rival: Line) -> str:
    """Returns the comparison with a baseline, in words."""
    size, error = abs(rival.difference), rival.difference_se
    side, word = ("lower", "better") if rival.difference < 0 else ("higher", "worse")
    if error is None:
        return f"{side} than that of a {rival.name} on one row, which decides nothing"
    if max(size, error) < 5e-5:
        return f"that of a {rival.name}"
    digits = 2 if error >= 0.01 else 4
    apart = f"by {size:.{digits}f} ± {error:.{digits}f} nats a row"
    if size <= 2 * error:
        return f"within two standard errors of that of a {rival.name} ({side} {apart})"
    return f"{side} than that of a {rival.name}, {apart}: the flow is {word}"


def _table(
    manifest: Manifest, least: Sequence[Unlikely]
) -> list[tuple[str, list[str], list[bool]]]:
    """Returns a line a column: its name, the rows' values, which are beyond the training rows'."""
    rows = np.stack([row.x for row in least])
    known = manifest.statistics
    columns = manifest.columns.modelled if manifest.columns else [None] * manifest.width
    outside = (rows < np.array(known.min)) | (rows > np.array(known.max))
    texts = [
        [_text(value, column) for value in values]
        for values, column in zip(rows.T.tolist(), columns, strict=True)
    ]
    return list(zip(names(manifest), texts, outside.T.tolist(), strict=True))


def _text(value: float, column: Column | None) -> str:
    if column is not None and column.kind in ("category", "time", "duration"):
        series = column.decode(np.array([value]), np.random.default_rng(0))
        kept = series.values[0]
        return str(series.levels[kept] if series.kind == "category" else kept)
    return str(int(value)) if float(value).is_integer() else f"{value:.4g}"
