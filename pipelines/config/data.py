"""Data, and the fitted bijections in front of a flow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ebflow.errors import BadInput
from pipelines.config.section import UNKEYED, Section, Size, Threaded

if TYPE_CHECKING:
    from ebflow.marginals import Bounds


BOUNDS = "--preprocess.bounds"


class DataConfig(Section):
    """The source of the data, and the splits of its rows."""

    source: str = Field(
        "digits",
        min_length=1,
        description="name of a data set (`ebflow data list`), a .parquet, .csv, .arrow, "
        ".feather or .npy file, a folder of .parquet files, or one of PNG or JPEG images, or "
        "of such folders, which are classes (--data.label label)",
        json_schema_extra=UNKEYED,
    )
    validation: Size | None = Field(
        None,
        gt=0,
        description="validation rows, or their share if below 1; None: those that the source "
        "names, else a tenth, or as the source says",
    )
    test: Size | None = Field(
        None, gt=0, description="test rows, or their share if below 1; None as for validation"
    )
    selection: Size | None = Field(
        None,
        gt=0,
        description="rows held out of all three, or their share if below 1, on which a search "
        "names its winner; None: none (`ebflow tune`: as many as for validation)",
    )
    rows: int | None = Field(None, ge=3, description="use only that many rows; None: all")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="columns to use; None: all that can be used"
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="column of integer classes, stored beside the data; None: none",
    )
    context: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="columns of the context c of p(x | c): numbers or categories (text, one-hot); "
        "label: the column of classes, which may be text then; None: none",
    )
    split_column: str | None = Field(
        None,
        min_length=1,
        description="column that names the split of each row: train, validation (or valid, val), "
        "test, selection; None: the one called split, if it holds text",
    )
    held_out: Literal["random", "last"] = Field(
        "random",
        description="rows of splits that the source does not name: random ones, or its last rows "
        "(test rows, and before them validation rows)",
    )
    missing: Literal["drop", "impute"] | None = Field(
        None,
        description="treatment of rows of a table with a missing value (null or NaN): drop leaves "
        "them out; impute trains on them, with values sampled again and again from the flow; "
        "None: they are an error",
    )
    resize: int | None = Field(
        None,
        ge=2,
        description="side to which a folder's images are scaled and cut, in the colours of the "
        "first one, transparency over white; None: all have one size",
    )
    seed: int = Field(0, ge=0, description="seed of the split")


class PreprocessConfig(Section):
    """Fixed bijections in front of the flow, fitted on the training split."""

    normalize: Literal["none", "standardize", "whiten", "cholesky", "auto"] = Field(
        "whiten",
        description="map the training data to zero mean and unit (co)variance; cholesky whitens "
        "by a triangular matrix, which keeps the order of columns; auto is cholesky if columns "
        "nearly depend on others, else standardize",
    )
    logit: float | None = Field(
        1e-6, gt=0, lt=0.5, description="margin of the logit of integer data; None: no logit"
    )
    scale: float = Field(1.0, gt=0, description="divisor of the logit")
    shrinkage: float | None = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the identity in the correlations that are whitened; None: the one "
        "whose Gaussian is likeliest on held-out rows",
    )
    grids: bool = Field(
        False,
        description="dequantize columns of a table that lie on an ordered grid (integers, tenths) "
        "or have few values, and repeated values of other columns, by uniform noise",
    )
    tails: bool = Field(
        False,
        description="fit bounds and tails of a table's columns on training rows: a logit or "
        "logarithm at bounds, Johnson's S_U for heavy or skewed tails, each if it makes held-out "
        "rows likelier",
    )
    bounds: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="known bounds of columns, as NAME:LOW:HIGH, an end that is open left empty "
        "(income:0:): a logarithm or logit of them",
    )
    gaussianize: bool = Field(
        False,
        description="after the whitening, transform directions with heavy or skewed tails to "
        "near normal by Johnson's S_U, each if it makes held-out rows likelier",
    )
    match_after: bool = Field(
        True, description="match scores after preprocessing (else in raw data units)"
    )

    def bounded(self, columns: Sequence[str]) -> "Bounds":
        """Returns the known bounds by the index of a column.

        Raises:
            BadInput: If one is not as expected, or there is no such column.
        """
        found: dict[int, tuple[float | None, float | None]] = {}
        for text in self.bounds or ():
            name, *ends = text.rsplit(":", 2)
            try:
                low, high = (float(end) if end else None for end in ends)
            except ValueError:
                expected = "NAME:LOW:HIGH with numbers, one of them perhaps empty"
                raise BadInput(option=BOUNDS, found=repr(text), expected=expected) from None
            if None not in (low, high) and not low < high:
                raise BadInput(option=BOUNDS, found=repr(text), expected="LOW below HIGH")
            if name not in columns:
                expected = f"one of {', '.join(columns)}"
                raise BadInput(option=BOUNDS, found=f"column {name!r}", expected=expected)
            found[list(columns).index(name)] = low, high
        return found


class ChainConfig(Threaded, Section):
    """The settings of the preprocessing that is fitted in front of a flow."""

    seed: int = Field(0, ge=0, description="seed of the dequantization noise of the fit")
    chain: PreprocessConfig = PreprocessConfig()
    mixture: bool = Field(False, description="whether a mixture of Gaussians is its base")
    dtype: Literal["float32", "float64"] = Field("float32", description="type of its use")
    threads: int = Field(1, ge=1, description="CPU threads of the fit")
