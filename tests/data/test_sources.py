import subprocess
import sys

import pytest

from ebflow.data.sources import SOURCES, describe, fingerprint, open_source

from .parquet import images, lists, table, write


@pytest.mark.parametrize("name", SOURCES)
def test_named_source_is_what_it_says(name):
    source, reader = SOURCES[name], open_source(name)
    assert reader.rows == source.rows
    assert reader.layout.shape == source.shape
    assert sum(len(batch) for batch in reader.batches()) == source.rows


def test_describe_lists_every_source_as_text():
    assert [entry["name"] for entry in describe()] == list(SOURCES)
    for entry in describe():
        assert all(isinstance(value, str) and value for value in entry.values())


def test_a_path_is_not_taken_for_a_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    write(tmp_path / "digits" / "part.parquet", table())
    monkeypatch.chdir(tmp_path)
    assert open_source("digits").rows == 1797
    assert open_source("./digits").rows == 60


def test_fingerprint_follows_the_content_and_not_the_folder(tmp_path):
    prints = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name / "in.parquet", {"x": lists(images(seed=seed))})
        prints.append(fingerprint(file))
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint("digits") == fingerprint("digits")


def test_listing_sources_imports_neither_torch_nor_sklearn():
    code = (
        "import sys, ebflow.data.sources as s; s.describe();"
        "print(sorted({'torch', 'sklearn'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
