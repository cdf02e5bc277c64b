"""A message about bad input is one printable line, made of the error's fields."""

import pickle
from dataclasses import replace

from ebflow.errors import HALF, BadInput

AGE = BadInput(
    file="a.csv",
    column="age",
    row=17,
    found="'forty'",
    expected="a number",
    hint="Fix the value, or pass --data.categories age",
)


def test_fields_make_a_line():
    place = "a.csv, column 'age', row 17: found 'forty', expected a number"
    assert str(AGE) == f"{place}. Fix the value, or pass --data.categories age"
    assert str(BadInput(option="--train.lr", found=0)) == "--train.lr: found 0"
    assert (
        str(BadInput(option="x", column=3, row=0, found="nan")) == "x, feature 3, row 0: found nan"
    )
    assert str(BadInput("not found", file="b", expected="JSON")) == "b: not found, expected JSON"
    assert str(BadInput("no disk")) == "no disk"


def test_the_fields_survive_the_way_between_processes():
    there = pickle.loads(pickle.dumps(AGE))
    assert (there.column, there.row, str(there)) == ("age", 17, str(AGE))
    assert str(replace(there, file=None, hint=None)).startswith("column 'age', row 17: found")


def test_line_ends_and_unprintable_characters_are_gone():
    message = str(
        BadInput(file="x.parquet", found="\n  'a\x1b[31m\u202eb\ud800'", expected="text")
    )
    assert message == r"x.parquet: found 'a\x1b[31m\u202eb\ud800', expected text"


def test_a_long_line_keeps_its_ends():
    message = str(BadInput(file="x.yaml", found="y" * 10_000, expected="a number"))
    assert len(message) <= 2 * HALF and " … " in message
    assert message.startswith("x.yaml: found y") and message.endswith("expected a number")


def test_a_plain_line_stays_as_it_is():
    line = "--train.lr: found -1, expected greater than 0 (× √D, 8×8 … 28×28)"
    assert str(BadInput(line)) == line
