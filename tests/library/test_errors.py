"""What is told of a file is one line that can be printed, whatever the file holds."""

import pickle

from ebflow.errors import MOST_CHARACTERS, BadInput


def test_lines_ends_and_what_is_not_printed_are_gone():
    message = str(BadInput("x.parquet: found\n  'a\x1b[31m\u202eb\ud800', expected text"))
    assert message == r"x.parquet: found 'a\x1b[31m\u202eb\ud800', expected text"


def test_a_long_line_keeps_its_ends():
    message = str(BadInput(f"x.yaml: found {'y' * 10_000}, expected a number"))
    assert len(message) <= MOST_CHARACTERS and " … " in message
    assert message.startswith("x.yaml: found y") and message.endswith("expected a number")
    assert str(pickle.loads(pickle.dumps(BadInput(message)))) == message


def test_a_plain_line_stays_as_it_is():
    line = "train.lr: found -1, expected greater than 0 (× √D, 8×8 … 28×28)"
    assert str(BadInput(line)) == line
