"""Data, and the fitted bijections in front of a flow."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import UNKEYED, Section, Size


class DataConfig(Section):
    """The source of the data, and the splits of its rows."""

    source: str = Field("digits", min_length=1, json_schema_extra=UNKEYED)
    """name of a data set (`ebflow data list`), a .parquet, .csv or .npy file, a
    folder of .parquet files, or one of PNG or JPEG images, or of such folders, which are classes
    (--data.label label)"""
    validation: Size | None = Field(None, gt=0)
    """validation rows, or their share if below 1; None: those that the source names, else a
    tenth, or as in the source"""
    test: Size | None = Field(None, gt=0)
    """test rows, or their share if below 1; None as for validation"""
    selection: Size | None = Field(None, gt=0)
    """further held-out rows, or their share if below 1, by which a search chooses its winner;
    None: none (`ebflow tune`: as many as for validation)"""
    rows: int | None = Field(None, ge=3)
    """use only that many rows; None: all"""
    columns: tuple[str, ...] | None = Field(None, min_length=1)
    """columns to use; None: all that can be used"""
    label: str | None = Field(None, min_length=1)
    """column of integer classes, stored beside the data; None: none"""
    context: tuple[str, ...] | None = Field(None, min_length=1)
    """columns of the context c of p(x | c): numbers or categories (text, one-hot); label: the
    column of classes, which may be text then; None: none"""
    split_column: str | None = Field(None, min_length=1)
    """column that names the split of each row: train, validation (or valid, val), test,
    selection; None: the one called split, if it holds text"""
    held_out: Literal["random", "last"] = "random"
    """rows of splits that the source does not name: random ones, or its last rows (test rows, and
    before them validation rows)"""
    missing: Literal["impute", "drop"] | None = "impute"
    """treatment of rows of a table with a missing value (null or NaN): impute trains on them, with
    values sampled again and again from the flow; drop removes them; None: they are an error"""
    seed: int = Field(0, ge=0)
    """seed of the split"""


class PreprocessConfig(Section):
    """Fixed bijections in front of the flow, fitted on the training split."""

    normalize: Literal["none", "standardize", "whiten", "cholesky", "auto"] = "whiten"
    """map the training data to zero mean and unit (co)variance; cholesky whitens by a triangular
    matrix, which preserves the order of columns; auto is cholesky if columns nearly depend on
    others, else standardize"""
    logit: float | None = Field(1e-6, gt=0, lt=0.5)
    """margin of the logit of integer data; None: no logit"""
    scale: float = Field(1.0, gt=0)
    """divisor of the logit"""
    shrinkage: float | None = Field(0.0, ge=0, le=1)
    """share of the identity in the correlations that are whitened; None: the one whose Gaussian
    is likeliest on held-out rows"""
    grids: bool = False
    """dequantize columns of a table that lie on an ordered grid (integers, tenths) or have few
    values, and repeated values of other columns, by uniform noise"""
    tails: bool = False
    """fit bounds and tails of a table's columns on training rows: a logit or logarithm at bounds,
    Johnson's S_U for heavy or skewed tails, each if it makes held-out rows likelier"""
    bounds: dict[str, tuple[float | None, float | None]] | None = None
    """known bounds of columns, each as NAME LOW HIGH, None at an open end (income 0 None): a
    logarithm or logit of them; bounds in a configuration file apply to the other columns"""
    gaussianize: bool = False
    """after the whitening, transform directions with heavy or skewed tails to near normal by
    Johnson's S_U, each if it makes held-out rows likelier"""
    match_after: bool = True
    """score matching of preprocessed rows (else in units of the raw data)"""


class PreprocessFit(Section):
    """The settings of the preprocessing that is fitted in front of a flow."""

    seed: int = 0  #: Seed of the dequantization noise of the fit
    options: PreprocessConfig = PreprocessConfig()
    mixture: bool = False  #: True if a mixture of Gaussians is the flow's base
    exact: bool = False  #: True if the flow has exact probabilities of categories
    pixels: bool = False  #: True if the flow has exact probabilities of integers
    dtype: Literal["float32", "float64"] = "float32"  #: The type of its use
    threads: int = 1
