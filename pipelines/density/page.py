"""The page of a trained flow: warnings, the result, where it comes from, then what explains it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ebflow.data import split
from ebflow.data.manifest import Manifest
from pipelines.density.fit import Fit, Unlikely, is_image
from pipelines.density.likelihoods import better, lines
from pipelines.reporting import pages
from pipelines.tracking.provenance import code

BETTER = {"lower": "the flow is better", "higher": "the flow is worse"}
TEMPLATE = Path(__file__).with_name("report.html.j2")


def names(manifest: Manifest) -> list[str]:
    """Returns the names of all columns with their units; x[0], x[1], … of rows without."""
    if manifest.columns is not None:
        return manifest.columns.titles
    return [f"x[{k}]" for k in range(manifest.width)]


def page(
    numbers: Mapping[str, float],
    manifest: Manifest,
    made: Mapping[str, str],
    images: Mapping[str, Path],
    fit: Fit,
    distances: Sequence[Mapping[str, Any]],
    least: Sequence[Unlikely],
    warnings: Sequence[str] = (),
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        numbers: Metrics of training and evaluation.
        manifest: Describes the data.
        made: How it came to be: ``command``, ``config`` (as YAML), ``verdict`` of the training.
        images: PNG files by name of the figure.
        fit: Test rows beside samples.
        distances: What was measured of these.
        least: The least likely test rows.
        warnings: What a reader should not miss, first on the page.
    """
    return pages.render(
        TEMPLATE,
        images,
        numbers=numbers,
        lines=lines(numbers),
        result=_result(numbers),
        manifest=manifest,
        made={**made, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"},
        code=code(),
        fit=fit,
        distances=distances,
        least=least,
        table=[] if is_image(manifest) else _table(manifest, least),
        warnings=warnings,
    )


def _result(numbers: Mapping[str, float]) -> str:
    """Returns the comparison with the better baseline, in words."""
    rival = better(numbers)
    if max(abs(rival.difference), rival.difference_se) < 5e-5:
        return f"that of a {rival.name}"
    digits = 2 if rival.difference_se >= 0.01 else 4
    apart = f"{abs(rival.difference):.{digits}f} ± {rival.difference_se:.{digits}f} nats a row"
    side = "lower" if rival.difference < 0 else "higher"
    if abs(rival.difference) <= 2 * rival.difference_se:
        return f"within two standard errors of that of a {rival.name} ({side} by {apart})"
    return f"{side} than that of a {rival.name}, by {apart}: {BETTER[side]}"


def _table(
    manifest: Manifest, least: Sequence[Unlikely]
) -> list[tuple[str, list[str], list[bool]]]:
    """Returns a line a column: its name, the rows' values, which are beyond the training rows'."""
    rows = np.stack([row.x for row in least])
    found, known = manifest.columns, manifest.statistics
    levels = found.categories if found else [None] * manifest.width
    outside = split((rows < np.array(known.min)) | (rows > np.array(known.max)), levels)
    texts = [
        [_text(value, named) for value in column.tolist()]
        for column, named in zip(split(rows, levels), levels, strict=True)
    ]
    beyond = [column.astype(bool).tolist() for column in outside]
    return list(zip(found.measured if found else names(manifest), texts, beyond, strict=True))


def _text(value: float, levels: Sequence[str] | None) -> str:
    if levels is not None:
        return levels[value]
    return str(int(value)) if float(value).is_integer() else f"{value:.4g}"
