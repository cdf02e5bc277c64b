"""Sources that are missing, damaged, too short, or split in a wrong way: each maker writes one and
returns (source, options, message)."""

from .parquet import Cases, bad_file, images, lists, table, write

FILES = Cases()


@FILES.add
def unknown_name(path):
    return (
        "digit",
        {},
        r"source: found 'digit', expected one of digits, sine, .*, a path that ends in",
    )


@FILES.add
def wrong_suffix(path):
    (path / "bad.xlsx").write_text("a,b\n1,2\n")
    message = r"found '.*bad.xlsx', expected one of digits, sine, .*pandas converts other files"
    return path / "bad.xlsx", {}, message


@FILES.add
def missing_file(path):
    return path / "bad.parquet", {}, r"bad.parquet: no such file or folder"


@FILES.add
def missing_folder(path):
    return str(path / "none"), {}, r"found '.*none', expected one of digits"


@FILES.add
def folder_without_parquet(path):
    (path / "raw").mkdir()
    (path / "raw" / "notes.txt").write_text("none here")
    return path / "raw", {}, r"raw: found no file that ends in .parquet"


@FILES.add
def folder_prepared_already(path):
    (path / "raw").mkdir()
    (path / "raw" / "manifest.json").write_text("{}")
    return path / "raw", {}, r"raw: found a prepared data set, expected raw data"


@FILES.add
def empty_file(path):
    (path / "bad.parquet").touch()
    return (
        path / "bad.parquet",
        {},
        r"bad.parquet: corrupt, or no Parquet file \(.*0 bytes",
    )


@FILES.add
def csv_called_parquet(path):
    (path / "bad.parquet").write_text("a,b\n1,2\n")
    return path / "bad.parquet", {}, r"bad.parquet: corrupt, or no Parquet file \("


@FILES.add
def folder_called_parquet_inside_folder(path):
    (path / "raw" / "x.parquet").mkdir(parents=True)
    return path / "raw", {}, r"x.parquet: corrupt, or no Parquet file \(.*directory"


@FILES.add
def truncated(path):
    file = bad_file(path, table())
    file.write_bytes(file.read_bytes()[:-20])
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \(.*magic bytes"


@FILES.add
def only_magic(path):
    (path / "bad.parquet").write_bytes(b"PAR1")
    return path / "bad.parquet", {}, r"bad.parquet: corrupt, or no Parquet file \("


@FILES.add
def corrupt_footer(path):
    file = bad_file(path, table())
    data = bytearray(file.read_bytes())
    data[-60:-8] = b"\xff" * 52
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \("


@FILES.add
def column_name_not_text(path):
    file = bad_file(path, {"image": lists(images())})
    file.write_bytes(file.read_bytes().replace(b"image", b"im\xff\xfee"))
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \(.*utf-8"


@FILES.add
def impossible_footer_length(path):
    file = bad_file(path, table())
    file.write_bytes(file.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \("


@FILES.add
def corrupt_page(path):
    file = bad_file(path, table(4000), write_page_checksum=True, compression="none")
    data = bytearray(file.read_bytes())
    data[20000:20100] = bytes(100)
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \(.*CRC checksum"


@FILES.add
def corrupt_compressed_page(path):
    file = bad_file(path, {"image": lists(images(4000))}, compression="zstd")
    data = bytearray(file.read_bytes())
    data[3000:3400] = b"\xa5" * 400
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt, or no Parquet file \("


@FILES.add
def zero_rows(path):
    return bad_file(path, table(0)), {}, r"bad.parquet: found 0 rows, expected some"


@FILES.add
def zero_rows_in_folder(path):
    (path / "raw").mkdir()
    for name in ("a", "b"):
        write(path / "raw" / f"{name}.parquet", table(0))
    return path / "raw", {}, r"raw: found 0 rows, expected some"


@FILES.add
def one_row(path):
    return bad_file(path, table(1)), {}, r"bad.parquet: found 1 row, expected at least 4"


@FILES.add
def too_few_rows(path):
    options = {"validation": 30, "test": 29}
    message = r"bad.parquet: found 60 rows, expected at least 61: 30 for validation, 29 for test"
    return bad_file(path, table()), options, message


@FILES.add
def fractions_leave_nothing(path):
    options = {"validation": 0.5, "test": 0.5}
    return (
        bad_file(path, table()),
        options,
        r"found 60 rows, expected at least 62: 30 for",
    )


@FILES.add
def negative_fraction(path):
    return "digits", {"test": -0.1}, r"test: found -0.1, expected a whole number of rows"


@FILES.add
def fraction_above_one(path):
    return "digits", {"validation": 1.5}, r"validation: found 1.5, expected"


@FILES.add
def fraction_nan(path):
    return "digits", {"validation": float("nan")}, r"validation: found nan, expected"


@FILES.add
def zero_test_rows(path):
    return "digits", {"test": 0}, r"test: found 0, expected"


@FILES.add
def more_test_rows_than_the_source_has_set_aside(path):
    message = r"natural-patches-16: found 2001 rows wanted for test, expected at most 2000 \(the"
    return "natural-patches-16", {"test": 2001}, message


@FILES.add
def more_training_rows_than_the_source_has_set_aside(path):
    message = r"natural-patches-16: found 22000 rows wanted for train, expected at most 20000"
    return "natural-patches-16", {"rows": 24_000, "validation": 1000, "test": 1000}, message


@FILES.add
def fewer_rows_than_the_source_holds_back(path):
    message = r"natural-patches-16: found 4000 rows, expected at least 4002: 2000 for validation"
    return "natural-patches-16", {"rows": 4000}, message


@FILES.add
def more_rows_than_there_are(path):
    return "digits", {"rows": 1798}, r"rows: found 1798, expected 1 … 1797"
