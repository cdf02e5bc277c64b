"""CSV, Arrow and NumPy files that make no data set: each maker writes one and returns (source,
options, message)."""

import numpy as np

from .parquet import Cases

FORMATS = Cases()


def text(path, content, name="bad.csv"):
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path / name


def lines(*rows):
    return "a,b\n" + "\n".join(rows) + "\n"


@FORMATS.add
def csv_without_names(path):
    return (
        text(path, "1,2\n3,4.5\n"),
        {},
        r"bad.csv: found numbers in the first line, expected names",
    )


@FORMATS.add
def csv_between_semicolons(path):
    message = r"bad.csv: found columns between semicolons, expected commas. pandas.read_csv"
    return text(path, "a;b\n1;2\n"), {}, message


@FORMATS.add
def csv_between_semicolons_with_decimal_commas(path):
    message = r"bad.csv: found columns between semicolons.*\(path, sep=';', decimal=','\).to_csv"
    return text(path, "a;b\n1,5;2,25\n"), {}, message


@FORMATS.add
def csv_in_utf16(path):
    message = r"bad.csv: found another encoding, expected UTF-8. .* or 'utf-16'\).to_csv"
    return text(path, lines("1,2", "3,4").encode("utf-16")), {}, message


@FORMATS.add
def csv_with_names_in_latin_1(path):
    message = r"bad.csv: found another encoding, expected UTF-8. .*encoding='latin-1'"
    return text(path, "größe,b\n1,2\n".encode("latin-1")), {}, message


@FORMATS.add
def csv_with_an_empty_field(path):
    message = r"bad.csv, column 'a', row 1: found null, expected a finite number"
    return text(path, lines("1,2", ",3", *(f"{k},{k % 3}.5" for k in range(8)))), {}, message


@FORMATS.add
def csv_with_a_short_line(path):
    message = r"bad.csv: corrupt, or no CSV file \(.*Expected 2 columns, got 1"
    return text(path, lines("1,2", "3")), {}, message


@FORMATS.add
def csv_with_two_columns_of_a_name(path):
    return text(path, "a,a\n1,2\n"), {}, r"bad.csv, column 'a': found 2 of this name"


@FORMATS.add
def csv_with_an_index_without_a_name(path):
    message = r"bad.csv, column '': expected a name .* by columns, or .*df.to_csv\(path, index=Fa"
    return text(path, ",a,b\n0,1,2\n1,3,4\n"), {}, message


@FORMATS.add
def csv_with_a_word_among_numbers(path):
    message = r"bad.csv, column 'b', row 299: found 'x' among numbers, expected a number or"
    return text(path, lines(*(f"{k},{k}.5" for k in range(299)), "1,x")), {}, message


@FORMATS.add
def csv_with_a_word_among_few_numbers(path):
    message = r"bad.csv, column 'b', row 99: found 'unknown' among numbers, expected a number or"
    return text(path, lines(*(f"{k},{k % 5}" for k in range(99)), "1,unknown")), {}, message


@FORMATS.add
def csv_with_a_sign_of_a_missing_number(path):
    message = r"bad.csv, column 'b', row 9: found null, expected a finite number, or data.missing"
    return text(path, lines(*(f"{k},{k % 7}" for k in range(9)), "1,?")), {}, message


@FORMATS.add
def csv_with_an_empty_category(path):
    message = r"bad.csv, column 'b', row 9: found null, expected a known level"
    return text(path, lines(*(f"{k},{'xy'[k % 2]}" for k in range(9)), "1,")), {}, message


@FORMATS.add
def csv_not_utf8(path):
    return (
        text(path, b"a,b\n" + b"1,\xff\xfe\n2,3\n" * 4),
        {},
        r"column 'b': found bytes, expected",
    )


@FORMATS.add
def empty_csv(path):
    return text(path, ""), {}, r"bad.csv: corrupt, or no CSV file \(Empty CSV"


@FORMATS.add
def csv_of_a_header_alone(path):
    return text(path, "a,b\n"), {}, r"bad.csv: found 0 rows, expected some"


@FORMATS.add
def truncated_npy(path):
    np.save(path / "bad.npy", np.zeros((100, 3)))
    (path / "bad.npy").write_bytes((path / "bad.npy").read_bytes()[:500])
    return path / "bad.npy", {}, r"bad.npy: corrupt, or no NumPy file"


@FORMATS.add
def pickle_called_npy(path):
    np.save(path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    message = r"bad.npy: corrupt, or no NumPy file \(.*Python objects"
    return path / "bad.npy", {}, message


@FORMATS.add
def complex_npy(path):
    np.save(path / "bad.npy", np.zeros((9, 2), complex))
    message = r"bad.npy: found an array of shape \(9, 2\) and type complex128, expected rows"
    return path / "bad.npy", {}, message


@FORMATS.add
def wide_integers_as_images(path):
    np.save(path / "bad.npy", np.zeros((9, 2, 2), int))
    message = r"bad.npy: found examples of shape \(2, 2\) and type int64.*astype\('uint8'\)"
    return path / "bad.npy", {}, message


@FORMATS.add
def nan_in_npy(path):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    rows[7, 2] = np.nan
    np.save(path / "bad.npy", rows)
    return (
        path / "bad.npy",
        {},
        r"bad.npy, column 'x3', row 7: found nan, expected a finite number",
    )
