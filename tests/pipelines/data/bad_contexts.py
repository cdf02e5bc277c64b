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
    message = r"bad.parquet, column age: no such column, expected one of a, b, c: .* by context"
    return bad_file(path, table()), {"context": ["age"]}, message


@CONTEXTS.add
def context_named_twice(path):
    return *given(path, regions(), context=["k", "k"]), r"context: found k 2 times, expected once"


@CONTEXTS.add
def context_of_all_columns(path):
    message = r"found all of a, b, c taken from the data, expected some left: .* by context"
    return bad_file(path, table()), {"context": ["a", "b", "c"]}, message


@CONTEXTS.add
def context_among_the_features(path):
    options = {"columns": ["a", "k"]}
    return *given(path, regions(), **options), r"columns: found k, a context, expected features"


@CONTEXTS.add
def context_of_categories_that_are_all_missing(path):
    values = pa.array([None] * 60, pa.string())
    return *given(path, values), r"column k: found no value in the training rows, expected two"


@CONTEXTS.add
def context_of_numbers_that_are_all_missing(path):
    values = pa.array([None] * 60, pa.float64())
    return *given(path, values), r"row 0, column k: found null, expected a finite number"


@CONTEXTS.add
def context_of_one_level(path):
    return *given(path, ["north"] * 60), r"column k: found the level 'north' alone in the training"


@CONTEXTS.add
def context_of_one_number(path):
    return *given(
        path, [3] * 60
    ), r"column k: found values from 3.0 to 3.0 in all 48 training rows"


@CONTEXTS.add
def context_of_text_with_too_many_levels(path):
    rows = 600
    columns = table(rows).append_column("k", pa.array([f"order {row}" for row in range(rows)]))
    message = r"column k: found more than 256 levels \('order 0', …\), expected fewer"
    return bad_file(path, columns), {"context": ["k"]}, message


@CONTEXTS.add
def context_with_a_null_category(path):
    values = poisoned(regions(), 7, None)
    return *given(path, values), r"row 7, column k: found null, expected a level of the training"


@CONTEXTS.add
def context_with_a_nan(path):
    values = np.where(np.arange(60) == 9, np.nan, np.arange(60.0))
    return *given(path, values), r"row 9, column k: found nan, expected a finite number"


@CONTEXTS.add
def context_whose_level_no_training_row_has(path):
    splits = ["train"] * 50 + ["test"] * 10
    values = [*regions(55), "west", *regions(4)]
    columns = table().append_column("k", pa.array(values)).append_column("split", pa.array(splits))
    message = (
        r"row 55, column k: found 'west', expected a level of the training rows: north, south"
    )
    return bad_file(path, columns), {"context": ["k"]}, message


@CONTEXTS.add
def context_that_names_splits(path):
    columns = table().append_column("split", pa.array(["train"] * 50 + ["test"] * 10))
    message = r"context: found split, names of splits \(split_column\), expected data"
    return bad_file(path, columns), {"context": ["split"]}, message


@CONTEXTS.add
def context_of_dates(path):
    values = pa.array(np.arange(60), pa.timestamp("ns"))
    return *given(path, values), r"column k: found timestamp\[ns\], expected numbers or categories"


@CONTEXTS.add
def classes_of_reals_as_context(path):
    options = {"label": "k", "context": ["label"]}
    message = r"column k: found double, expected classes \(integers or text\)"
    return *given(path, np.arange(60.0) % 2, **options), message
