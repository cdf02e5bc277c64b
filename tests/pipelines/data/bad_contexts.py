"""Contexts that are none; makers as in ``bad_files``."""

import numpy as np
import pyarrow as pa

from .parquet import Cases, bad_file, poisoned, table

CONTEXTS = Cases()


def given(path, values, **options):
    columns = table().append_column("k", pa.array(values))
    return bad_file(path, columns), {"context": ["k"], **options}


def regions(rows=60):
    return [("north", "south")[row % 2] for row in range(rows)]


@CONTEXTS.add
def context_that_is_absent(path):
    message = (
        r"bad.parquet, column 'age': no such column, expected one of a, b, c. .*--data.context"
    )
    return bad_file(path, table()), {"context": ["age"]}, message


@CONTEXTS.add
def context_named_twice(path):
    return *given(path, regions(), context=["k", "k"]), r"context: found k 2 times, expected once"


@CONTEXTS.add
def context_of_all_columns(path):
    message = r"found only a, b, c, expected a column without another role. .* by --data.context"
    return bad_file(path, table()), {"context": ["a", "b", "c"]}, message


@CONTEXTS.add
def context_among_the_features(path):
    options = {"columns": ["a", "k"]}
    return *given(path, regions(), **options), r"columns: found k, a context, expected features"


@CONTEXTS.add
def context_of_categories_that_are_all_missing(path):
    values = pa.array([None] * 60, pa.string())
    return *given(path, values), r"column 'k': dropped: no value, expected a context"


@CONTEXTS.add
def context_of_one_level(path):
    return *given(path, ["north"] * 60), r"column 'k': dropped: always 'north', expected a cont"


@CONTEXTS.add
def context_of_one_number(path):
    return *given(
        path, [3] * 60
    ), r"column 'k': dropped: always 3, expected a context whose values"


@CONTEXTS.add
def context_with_a_null_category(path):
    values = poisoned(regions(), 7, None)
    return *given(path, values), r"column 'k', row 7: found null, expected a known level: north"


@CONTEXTS.add
def context_with_a_nan(path):
    values = np.where(np.arange(60) == 9, np.nan, np.arange(60.0))
    return *given(path, values), r"column 'k', row 9: found nan, expected a finite number"


@CONTEXTS.add
def context_that_names_splits(path):
    columns = table().append_column("split", pa.array(["train"] * 50 + ["test"] * 10))
    message = r"context: found split, names of splits \(split_column\), expected data"
    return bad_file(path, columns), {"context": ["split"]}, message


@CONTEXTS.add
def classes_of_reals_as_context(path):
    options = {"label": "k", "context": ["label"]}
    message = r"column 'k': found double, expected classes \(integers or text\)"
    return *given(path, np.arange(60.0) % 2, **options), message
