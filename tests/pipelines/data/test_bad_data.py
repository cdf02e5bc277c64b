import pytest

from ebflow.errors import BadInput
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import check_data
from tests.prepared import config, prepare

from .bad_columns import COLUMNS, CONTEXTS, VALUES
from .bad_files import FILES, FORMATS, IMAGES
from .bad_folders import FOLDERS
from .parquet import table, tree, write

SOURCES = FILES | FORMATS | IMAGES | COLUMNS | CONTEXTS | VALUES


@pytest.mark.parametrize("name", SOURCES)
def test_bad_source_gets_one_line_and_writes_nothing(name, tmp_path):
    make, message, options = SOURCES[name]
    source = make if isinstance(make, str) else make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(BadInput, match=message) as caught:
        prepare(source, tmp_path / "deep" / "out", **options)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    with pytest.raises(BadInput) as looked_at:
        check_data(config(source, **options))
    assert str(looked_at.value) == str(caught.value)
    assert tree(tmp_path) == before


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare("digits", folder)
    return tree(folder)


def use(folder):
    """Does what a training and an evaluation do with a data set."""
    dataset = Dataset(folder)
    for name in ("train", "validation", "test"):
        for _ in dataset.split(name).batches(100):
            pass


@pytest.mark.parametrize(("damage", "message"), FOLDERS.values(), ids=FOLDERS.keys())
def test_damaged_folder_gets_one_line(damage, message, digits, tmp_path):
    for name, content in digits.items():
        (tmp_path / name).write_bytes(content)
    use(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadInput, match=message) as caught:
        use(tmp_path)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)


def test_missing_shard_is_seen_when_the_folder_is_opened(digits, tmp_path):
    for name, content in digits.items():
        (tmp_path / name).write_bytes(content)
    damage, message = FOLDERS["shard missing"]
    damage(tmp_path)
    with pytest.raises(BadInput, match=message):
        Dataset(tmp_path)


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    file = write(tmp_path / "good.parquet", table())

    def interrupt(self, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.data.manifest.Manifest.save", interrupt)
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(file, tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("position", range(4, 400, 7))
def test_any_corrupt_byte_is_refused_or_harmless(position, tmp_path):
    """Real files with one byte changed anywhere never end in anything but BadInput."""
    file = write(tmp_path / "bad.parquet", table(30), write_page_checksum=True)
    data = bytearray(file.read_bytes())
    data[-position] ^= 0xFF
    file.write_bytes(data)
    try:
        prepare(file, tmp_path / "out")
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
        assert not (tmp_path / "out").exists()
