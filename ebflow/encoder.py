"""The rows of a table as numbers whose distances can be compared."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from .errors import BadInput
from .tables import ArrayLike, Columns, detect_columns
from .tables.rows import refuse

LARGEST, LEAST_RANGE = 1e100, 1e-100  # Of the numbers of a column: float64 has their squares

REPEATED = 15  # Rows of every value of a column in which another value is new

# Share of the rows from which a level has an element. Rarer levels are alike: the standard
# deviations of their elements would be so small that they outweigh all other columns.
FREQUENT = 0.05


class Table:
    """The columns of a table, and its training rows as numbers.

    There is one number for each column: a number, the code of a level, or NaN. Kinds of columns
    and the codes of levels come from all rows; what is known of the values is the encoder's. Rare
    levels have one code. If there are any, levels that no training row has get it too.
    """

    def __init__(self, X: ArrayLike, used: np.ndarray) -> None:
        """Detects the columns; raises BadInput if none describes rows."""
        found = detect_columns(X)
        self.columns = Columns((c if c.is_ignored else replace(c, dropped="", terms={})
                                for c in found), found.library)  # fmt: skip
        if not self.columns.width:
            ignored = f"only identifiers and rare text ({', '.join(found.names)})"
            expected = "a column that describes rows"
            raise BadInput(option="X", found=ignored, expected=expected)
        self.training = self.numbers(X)
        check_ranges(self.training[used], self.columns.features)

    def numbers(self, X: ArrayLike) -> np.ndarray:
        """Returns one number for each column, with shape (N, D).

        Text in place of a constant number is infinite.

        Raises:
            ValueError: if a number is infinite.
        """
        numbers = self.columns.encode(X, "X")
        for k, column in enumerate(self.columns.modelled):
            if column.rare:  # a level that no training row has is as rare as these
                numbers[:, k] = np.minimum(numbers[:, k], column.size - 1)
        varies = [not column.is_constant for column in self.columns.modelled]
        bad = np.isinf(numbers) & varies
        refuse_numbers(numbers, bad, self.columns.features, "a finite number")
        return numbers


class Encoder:
    """Encodes a table in two steps, so that few rows at a time have their levels apart.

    ``numbers`` has one number for each column: a number, the code of a level, or NaN.
    ``elements`` has finite numbers: those of columns that vary, with the median for missing
    values. An indicator of each column with missing values and one of each frequent level follow.

    It is fitted to the training rows of a table with the numbers ``used``. A level that these rows
    lack is a new one.

    Attributes:
        ranges: The largest minus the smallest number of each element, with shape (C,).
    """

    def __init__(self, table: Table, used: np.ndarray) -> None:
        self.table = table
        numbers = table.training[used]
        missing = np.isnan(numbers)
        self.never, self.always = ~missing.any(0), missing.all(0)
        self.low, high = np.fmin.reduce(numbers), np.fmax.reduce(numbers)
        self.medians = np.nanmedian(np.where(self.always, 0.0, numbers), 0)
        coded = [k for k, column in enumerate(table.columns.modelled) if column.size > 1]
        self.codes = {k: np.unique(numbers[~missing[:, k], k]) for k in coded}
        self.varies = self.low < high
        self.varies[coded] = False
        repeated = {k: _repeated(numbers[~missing[:, k], k]) for k in np.flatnonzero(self.varies)}
        repeated = {k: values for k, values in repeated.items() if len(values)}
        self.known, self.weights = repeated | self.codes, np.ones(len(self.low))
        self.weights[list(repeated)] = 0.5 / len(self.low)  # a level or a constant counts more
        self.compared = {k: _frequent(numbers[:, k], codes) for k, codes in self.codes.items()}
        indicators = int((~self.never & ~self.always).sum())
        levels = sum(map(len, self.compared.values()))
        self.ranges = np.r_[(high - self.low)[self.varies], np.ones(indicators + levels)]

    def numbers(self, X: ArrayLike) -> np.ndarray:
        """Returns one number for each column, as ``Table.numbers``."""
        return self.table.numbers(X)

    def elements(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the elements of numbers, with shape (N, C)."""
        missing = np.isnan(numbers)
        filled = np.where(missing, self.medians, numbers)[:, self.varies]
        levels = [numbers[:, [k]] == codes for k, codes in self.compared.items()]
        return np.hstack([filled, missing[:, ~self.never & ~self.always], *levels])

    def violations(self, numbers: np.ndarray) -> np.ndarray:
        """Returns how many columns of each row have a new kind of value, with shape (N,).

        That is another value of a constant, a new level, or the first missing value. It is also
        another number in a column in which many rows repeat every number. All of the last kind
        count for less than one of the others.
        """
        missing = np.isnan(numbers)
        slack = 4 * np.spacing(np.abs(self.low))  # a few rounding errors
        new = ~self.varies & (np.abs(numbers - self.low) > slack)
        for k, codes in self.known.items():
            new[:, k] = ~missing[:, k] & ~np.isin(numbers[:, k], codes)
        return new @ self.weights + ((missing & self.never) | (~missing & self.always)).sum(1)


def check_ranges(numbers: np.ndarray, names: Sequence[str]) -> None:
    """Raises ValueError at numbers of which float64 has no squares."""
    large = np.abs(numbers) > LARGEST
    refuse_numbers(numbers, large, names, f"at most {LARGEST}: rescale the column")
    ranges = np.fmax.reduce(numbers) - np.fmin.reduce(numbers)
    for k in np.flatnonzero((ranges > 0) & (ranges < LEAST_RANGE))[:1]:
        raise BadInput(
            option="X",
            column=names[k],
            found=f"numbers within {ranges[k]:.3g}",
            expected=f"a range of at least {LEAST_RANGE}: rescale it",
        )


def refuse_numbers(x: np.ndarray, bad: np.ndarray, names: Sequence[str], expected: str) -> None:
    """Raises BadInput at the first bad number of rows (N, D)."""
    refuse(torch.from_numpy(x), torch.from_numpy(bad), "X", names, expected)


def _repeated(numbers: np.ndarray) -> np.ndarray:
    """Returns the different numbers of a column; none if one of them is rare."""
    values, counts = np.unique(numbers, return_counts=True)
    return values if counts.min() >= REPEATED else values[:0]


def _frequent(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns the frequent codes of a category; none if there is one code."""
    if len(codes) < 2:
        return codes[:0]
    shares = np.array([(numbers == code).mean() for code in codes])
    return codes[shares >= FREQUENT]
