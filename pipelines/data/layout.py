"""The roles of a source's columns: data, class, split and context.

The data are one column of fixed-size lists, such as images, or the columns of a table. Other
columns may hold the class of a row, the name of its split, and its context.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, ValidationError

from ebflow.errors import BadInput
from pipelines.data.messages import first_error, listed, type_name

# The name by which a context may choose the column of classes; that of named sources.
LABEL = "label"

SPLIT = "split"  # The column that names the split of each row, if it holds text

# The types of the values of fixed-size lists.
DTYPES = {pa.uint8(): "uint8", pa.float32(): "float32", pa.float64(): "float64"}

INDEX = "__index_level_"  # The start of the names of columns that hold the index of a pandas frame

ADVICE, ABSENT = "choose others by columns", "no such column"


@dataclass(frozen=True)
class ListType:
    """The type of a column of fixed-size lists."""

    shape: tuple[int, ...]  #: The shape of a list's values; their number is D
    dtype: str  #: ``uint8``, ``float32`` or ``float64``
    levels: int | None  #: The number of levels of uint8 values; None: the values are continuous


@dataclass(frozen=True)
class Layout:
    """The roles of a source's columns."""

    columns: tuple[str, ...]  #: The names of the columns of the data
    types: Mapping[str, pa.DataType]  #: The Arrow types of all columns that are read
    units: Mapping[str, str]  #: The units of measurement of columns that have one
    lists: ListType | None  #: The type of the data, if they are one column of fixed-size lists
    label: str | None  #: The column of classes; None: there is none
    split: str | None  #: The column that names the split of each row; None: there is none
    context: tuple[str, ...]  #: The names of the columns of contexts
    remarks: tuple[str, ...]  #: Sentences for the user about the choice of columns

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the columns of data, classes and contexts."""
        beside = () if self.label in (None, *self.context) else (self.label,)
        return (*self.columns, *beside, *self.context)


def choose(
    schema: pa.Schema,
    *,
    file: str,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    split: str | None = None,
    context: Sequence[str] = (),
) -> Layout:
    """Chooses the roles of a source's columns.

    Arguments:
        schema: The source's columns; its metadata may hold ``shape`` and ``levels`` in JSON, and
            that of a field ``unit``.
        file: The name of the file in messages.

    The other arguments are the options of ``pipelines.config.DataConfig``.

    Raises:
        BadInput: if a column is missing, or has two roles or the wrong type.
    """
    source, names = _Source(schema, file), schema.names
    source.check_names({*(columns or names), label, split, *context, SPLIT, LABEL})
    if LABEL in context and label is None and LABEL in names:
        label = LABEL if pa.types.is_integer(schema.field(LABEL).type) else None
    if label is not None and LABEL not in names:
        context = [label if name == LABEL else name for name in context]
    if label is not None and label in context:
        source.expect_type("--data.label", label, _is_class, "classes (integers or text)")
    elif label is not None:
        source.expect_type("--data.label", label, pa.types.is_integer, "integer classes")
    if split is not None:
        source.expect_type("--data.split-column", split, is_text, "names of splits")
    elif SPLIT in names and is_text(schema.field(SPLIT).type):
        split = SPLIT
    taken = {split: "names of splits (split_column)"}
    source.expect_free("--data.context", context, taken, "data")
    taken |= {label: "the classes (label)"} | dict.fromkeys(context, "a context")
    chosen = source.candidates(taken) if columns is None else columns
    source.expect_free("--data.columns", chosen, taken, "features")
    types = {name: schema.field(name).type for name in {*chosen, *context, label} - {None}}
    alone = len(chosen) == 1 and pa.types.is_fixed_size_list(types[chosen[0]])
    return Layout(
        tuple(chosen),
        types,
        source.units(types),
        source.list_type(chosen[0]) if alone else None,
        label,
        split,
        tuple(context),
        tuple(source.remarks(split, list(chosen))),
    )


def is_text(kind: pa.DataType) -> bool:
    """Returns True for text, also as the levels of a dictionary."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_class(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_dictionary(kind) or is_text(kind)


class _Source(NamedTuple):
    """The columns of a file, and its name in messages."""

    schema: pa.Schema
    file: str

    def check_names(self, used: Collection[str | None]) -> None:
        """Raises BadInput at a used name that cannot be printed, or that two columns have."""
        if not self.schema.names:
            raise BadInput(file=self.file, found="no column", expected="at least one")
        for name, count in Counter(n for n in self.schema.names if n in used).items():
            if not name.isprintable() or not name:
                hint = (
                    f"{ADVICE}, or write the file without its index, df.to_csv(path, index=False)"
                )
                expected = "a name of printable characters"
                raise BadInput(file=self.file, column=name, expected=expected, hint=hint)
            if count > 1:
                found = f"{count} of this name"
                raise BadInput(file=self.file, column=name, found=found, expected="one")

    def expect_type(
        self, option: str, name: str, right: Callable[[pa.DataType], bool], expected: str
    ) -> None:
        """Raises BadInput unless an option names a column of the right type."""
        self._expect(option, name, f"one with {expected} of")
        if not right(kind := self.schema.field(name).type):
            found = type_name(kind)
            raise BadInput(file=self.file, column=name, found=found, expected=expected)

    def expect_free(
        self, option: str, names: Sequence[str], taken: Mapping[str | None, str], expected: str
    ) -> None:
        """Raises BadInput unless an option names different columns that have no other role."""
        for name, count in Counter(names).items():
            if count > 1:
                found = f"{name} {count} times"
                raise BadInput(option=option, found=found, expected="once")
            self._expect(option, name, "one of")
            if name in taken:
                found = f"{name}, {taken[name]}"
                raise BadInput(option=option, found=found, expected=expected)

    def _expect(self, option: str, name: str, expected: str) -> None:
        if name not in self.schema.names:
            expected = f"{expected} {listed(self.schema.names)}"
            hint = f"Choose others by {option}"
            raise BadInput(ABSENT, file=self.file, column=name, expected=expected, hint=hint)

    def candidates(self, taken: Mapping[str | None, str]) -> Sequence[str]:
        """Returns the columns of the data, if the user does not choose them."""
        arrays = [f.name for f in self.schema if pa.types.is_fixed_size_list(f.type)]
        if len(arrays) == 1 or "image" in arrays:
            return ["image" if "image" in arrays else arrays[0]]
        if arrays:
            found = f"{len(arrays)} fixed-size lists ({listed(arrays)})"
            raise BadInput(file=self.file, found=found, expected="one", hint=ADVICE)
        names = [n for n in self.schema.names if n not in taken and not n.startswith(INDEX)]
        if not names:
            found, expected = f"only {listed(self.schema.names)}", "a column without another role"
            hint = "Choose others by --data.context"
            raise BadInput(file=self.file, found=found, expected=expected, hint=hint)
        return names

    def remarks(self, split: str | None, chosen: Collection[str]) -> Iterator[str]:
        """Yields sentences about columns that are dropped."""
        for name in self.schema.names:
            if name.startswith(INDEX) and name not in chosen:
                yield f"column {name} is the index of a pandas frame and was dropped"
        if split is None and SPLIT in self.schema.names:
            yield (
                f"column {SPLIT} holds {type_name(self.schema.field(SPLIT).type)} and was not "
                "used for the splits, whose names (train, validation, test) are expected of it"
            )

    def units(self, names: Iterable[str]) -> dict[str, str]:
        """Returns the units of measurement of columns that have one."""
        pairs = ((name, _metadata(self.schema.field(name), self.file, name)) for name in names)
        return {name: metadata.unit for name, metadata in pairs if metadata.unit}

    def list_type(self, name: str) -> ListType:
        """Returns the type of a column of fixed-size lists."""
        kind, where = self.schema.field(name).type, f"{self.file}, schema metadata"
        value, width = kind.value_type, kind.list_size
        if value not in DTYPES or width < 1:
            found, expected = f"a fixed-size list of {width} {value}", "uint8, float or double"
            raise BadInput(file=self.file, column=name, found=found, expected=expected)
        metadata, dtype = _metadata(self.schema, where), DTYPES[value]
        shape, levels = metadata.shape or (width,), metadata.levels
        if math.prod(shape) != width:
            found, expected = f"{shape} with {math.prod(shape)} values", f"{width} as in the data"
            raise BadInput(file=where, option="key 'shape'", found=found, expected=expected)
        if dtype != "uint8" and levels is not None:
            found, expected = f"{levels} with {dtype} data", "none but of uint8 lists"
            raise BadInput(file=where, option="key 'levels'", found=found, expected=expected)
        return ListType(shape, dtype, (levels or 256) if dtype == "uint8" else None)


class _Metadata(BaseModel):
    """The keys that the metadata of a schema or a field may have; others are ignored."""

    model_config = ConfigDict(strict=True)

    shape: Json[Annotated[tuple[PositiveInt, ...], Field(min_length=1)]] | None = None
    levels: Json[Annotated[int, Field(ge=2, le=256)]] | None = None
    unit: Annotated[str, Field(max_length=60, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")] | None = None


def _metadata(owner: pa.Schema | pa.Field, file: str, column: str | None = None) -> _Metadata:
    pairs = (owner.metadata or {}).items()
    texts = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in pairs}
    try:
        return _Metadata.model_validate(texts)
    except ValidationError as error:
        raise first_error(error, file, column) from None


def expect_alike(first: Layout, other: Layout, *, first_file: str, file: str) -> None:
    """Raises BadInput unless two files of a folder have the same columns and shapes."""
    one, two = _facts(first), _facts(other)
    for key in sorted(one.keys() | two.keys()):
        if (found := two.get(key, ABSENT)) != (expected := one.get(key, ABSENT)):
            expected = f"{expected} as in {first_file}"
            raise BadInput(file=file, option=key, found=found, expected=expected)


def _facts(layout: Layout) -> dict[str, object]:
    facts: dict[str, object] = {
        f"column {name!r}": " in ".join(filter(None, [type_name(kind), layout.units.get(name)]))
        for name, kind in layout.types.items()
    }
    if layout.lists is not None:
        facts["schema metadata shape"] = layout.lists.shape
        facts["schema metadata levels"] = layout.lists.levels
    if layout.split is not None:
        facts[f"column {layout.split!r}"] = "names of splits"
    return facts
