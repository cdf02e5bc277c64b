"""Where data comes from: a named source, the user's files, or a folder of images."""

__all__ = ["Opened", "find_source", "open_source"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from ..errors import BadInput
from ..files import sha256
from . import Levels, images
from .categories import levels_of
from .formats import FORMATS
from .given import as_given, check_kinds, read_given
from .layout import Layout, read_layout, same_layout
from .named import SOURCES, Source
from .reader import SPLIT_ROWS, Part, Reader, placed


class Opened(NamedTuple):
    """A source of which no column has been chosen.

    Arguments:
        name: Name of the data set.
        label: The source as the user named it, for messages.
        parts: Its files, in the order of their rows.
        schemas: Their schemas.
        positional: Whether its columns have no names of their own.
        source: The named source that it is, or a folder of images.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    schemas: tuple[pa.Schema, ...]
    positional: bool = False
    source: Source | None = None

    def contexts(self, names: Sequence[str], levels: Levels) -> np.ndarray:
        """Returns the checked contexts of all rows, with shape (N, K).

        Raises:
            BadInput: If a column is missing or of another kind, or a value is no level.
        """
        found = []
        for part, schema in zip(self.parts, self.schemas, strict=True):
            given = read_given(schema, names, file=part.label)
            check_kinds(given, levels, label=part.label)
            for batch, where in placed(part, names, SPLIT_ROWS):
                found.append(as_given(batch, given, levels, **where))
        return np.concatenate([np.empty((0, len(names))), *found])

    def reader(self, missing: str | None = None, **chosen: Any) -> Reader:  # noqa: ANN401
        """Chooses columns; options and errors of ``open_source``, and of ``read_layout``.

        Reads all of the columns of categories whose levels are not told.
        """
        pairs = list(zip(self.parts, self.schemas, strict=True))
        layouts = [read_layout(schema, file=part.label, **chosen) for part, schema in pairs]
        for part, layout in zip(self.parts, layouts, strict=True):
            same_layout(layouts[0], layout, first_file=self.parts[0].label, file=part.label)
        if not any(part.rows for part in self.parts):
            raise BadInput(f"{self.label}: found 0 rows, expected at least 4 (to split them)")
        parts, layout = self.parts, self._levelled(layouts[0])
        if self.source is not None:
            digest = partial(self.source.sha256, layout.label)
            parts = tuple(part._replace(sha256=digest) for part in parts)
        if self.source is not None and self.source.folders and layout.label:
            told = f"classes 0, 1, … are the folders {', '.join(self.source.folders)}"
            layout = replace(layout, warnings=(*layout.warnings, told))
        return Reader(self.name, self.label, parts, layout, self.source, missing)

    def _levelled(self, layout: Layout) -> Layout:
        """Returns a layout with all levels of its columns of categories."""
        names = layout.unread
        if not names:
            return layout
        batches = (
            (batch, None) for part in self.parts for batch, _ in placed(part, names, SPLIT_ROWS)
        )
        return layout.told(levels_of(names, batches, label=self.label, option="columns"))


def open_source(
    source: str | Path,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    missing: str | None = None,
    context: Sequence[str] = (),
    *,
    timestamps: str | None = None,
    resize: int | None = None,
) -> Reader:
    """Opens a source and checks its schema: a named one, a file, a folder of Parquet or images.

    Files end in .parquet, .csv, .arrow, .feather, .npy or .npz. A folder with Parquet in it is a
    folder of Parquet, whatever else it holds.

    Arguments:
        source: A name in ``SOURCES`` or a path; names come first (write ``./digits`` for a path).
        columns: The columns to use; None takes the one fixed-size list, or all.
        label: The column of classes, ``label`` of a named source; None: none is read.
        split: The column that names the split of each row; None: ``split``, if it holds text.
        missing: What is done with rows that lack an entry, ``drop`` or ``impute``; None: they are
            refused.
        context: The columns that are given; ``label`` is that of classes.
        timestamps: The unit in which timestamps are read as numbers; None: they are refused.
        resize: Side to which the images of a folder are scaled and cut; None: they are of one
            size.

    Raises:
        BadInput: If there is no such source, or its columns do not make a data set.
    """
    chosen = {"columns": columns, "label": label, "split": split, "context": context}
    return find_source(source, resize).reader(missing, timestamps=timestamps, **chosen)


def find_source(source: str | Path, resize: int | None = None) -> Opened:
    """Opens a source whose columns are still to be chosen; arguments as in ``open_source``."""
    if isinstance(source, str) and source in SOURCES:
        found = _rows(SOURCES[source], source, source)
    else:
        found = _at(source, resize)
    if resize is not None and not (found.source and found.source.resized):
        raise BadInput(
            f"data.resize: found {resize} for {found.label}, expected None: what is resized is a "
            "folder of images"
        )
    return found


def _at(source: str | Path, resize: int | None) -> Opened:
    """Opens a path.

    Images are those of a folder, or of its sub-folders, which are their classes.
    """
    if _is_url(str(source)):
        raise BadInput(
            f"source: found a URL ({str(source).partition('/')[0]}//…), expected a path: a file "
            "or folder of this machine"
        )
    path = Path(source)
    if path.is_dir() and not any(path.glob("*.parquet")):
        files = images.find_images(path)
        classes = {} if files else images.find_classes(path)
        if files or classes:
            folder = _image_folder(path, files, classes, resize)
            return _rows(folder, path.resolve().stem, str(path))
    if path.is_dir() or path.suffix in FORMATS:
        return _files(path)
    raise BadInput(
        f"source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
        f"a path that ends in {', '.join(FORMATS)}, or a folder of .parquet files or of .png or "
        ".jpg images; pandas converts other files: df.to_parquet(path)"
    )


def _rows(source: Source, name: str, label: str) -> Opened:
    part = Part(label, source.rows, source.batches, source.sha256)
    return Opened(name, label, (part,), (source.schema,), source=source)


def _files(path: Path) -> Opened:
    """Opens a file or a folder of Parquet; reads only what tells their columns and rows."""
    found = {file: FORMATS.get(file.suffix, FORMATS[".parquet"])(file) for file in _list(path)}
    parts = tuple(
        Part(str(file), one.rows, one.open, partial(sha256, file)) for file, one in found.items()
    )
    schemas = tuple(one.schema for one in found.values())
    positional = any(one.positional for one in found.values())
    return Opened(path.resolve().stem, str(path), parts, schemas, positional)


def _image_folder(
    folder: Path, files: Sequence[Path], classes: Mapping[str, Sequence[Path]], side: int | None
) -> Source:
    """Returns images as a source, those of classes in the order of these; reads only the first."""
    files = files or [file for found in classes.values() for file in found]
    one = images.decode if side is None else partial(images.scaled, side=side)
    shape = images.planes(one(files[0])).shape
    read = partial(images.folder_rows, files, shape, resize=side is not None)
    about = "images of a folder", str(folder)
    sizes = [len(found) for found in classes.values()]
    labels = partial(np.repeat, np.arange(len(sizes)), sizes) if sizes else None
    options = {
        "files": lambda: files,
        "labels": labels,
        "side": shape[2],
        "resized": side is not None,
        "folders": tuple(classes),
    }
    return Source(read, len(files), shape, 256, *about, **options)


def _list(path: Path) -> list[Path]:
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder, expected data")
    if not path.is_dir():
        return [path]
    if (path / "manifest.json").exists():
        raise BadInput(f"{path}: found a prepared data set, expected raw data to prepare")
    files = sorted(path.glob("[!._]*.parquet"))
    if not files:
        raise BadInput(f"{path}: found no file that ends in .parquet, .png or .jpg in this folder")
    return files


def _is_url(place: str) -> bool:
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)
