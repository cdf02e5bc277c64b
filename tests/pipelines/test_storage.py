"""Stores of nodes that share no disk: what one made another finds, by a folder and by buckets."""

import re
import uuid
from pathlib import Path

import pytest

from ebflow.errors import BadInput
from pipelines import store
from pipelines.store import artefacts
from pipelines.store import bucket as remote

from .buckets import KEYS, GoogleBuckets


@pytest.fixture(scope="module")
def google():
    with GoogleBuckets() as made:
        yield made


@pytest.fixture(params=["folder", "s3", "gs"])
def url(request, tmp_path, monkeypatch):
    """The URL of an empty storage."""
    if request.param == "folder":
        return f"file://{tmp_path}/shared"
    if request.param == "gs":
        google = request.getfixturevalue("google")
        google.clear()
        return google.url
    bucket = request.getfixturevalue("bucket")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return bucket.url


@pytest.fixture
def node(url, home, tmp_path, monkeypatch):
    """Turns this process into one on another node, by its name, and returns that one's store."""
    monkeypatch.setenv("EBFLOW_STORAGE", url)

    def go(name):
        monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / name / "store"))
        return store.home()

    return go


def folder(home, **texts):
    """Returns a new folder with files and their texts, one of them further below."""
    made = home / "draft"
    (made / "inner").mkdir(parents=True)
    for name, text in texts.items():
        (made / name).write_text(text)
    (made / "inner" / "deep.txt").write_text("deep")
    return made


def write(path, content):
    """Writes a file into the bucket alone."""
    with remote.files().open_output_stream(remote.name(path)) as stream:
        stream.write(content)


@pytest.fixture
def made(node):
    return store.commit("stage", "key", folder(node("one"), a="a", b="bb"), run_id="run")


def test_what_a_node_made_another_finds(node, made):
    home = node("two")
    assert store.find("stage", "key") == made
    assert not home.exists()
    path = store.ensure_local(store.artefact("stage", "key"))
    assert path.is_relative_to(home) and store.digest(path) == made.digest
    assert (path / "inner" / "deep.txt").read_text() == "deep"


def test_a_file_in_an_artefact_brings_the_whole(node, made):
    node("two")
    path = store.ensure_local(store.artefact("stage", "key") / "a")
    assert path.read_text() == "a" and (path.parent / "b").read_text() == "bb"


def test_a_file_of_unfinished_work_is_copied_too(node):
    node("one")
    path = store.work("search", "key") / "trials" / "1" / "chain"
    path.parent.mkdir(parents=True)
    path.write_text("chain")
    store.upload(path)
    node("two")
    assert (
        store.ensure_local(store.work("search", "key") / "trials/1/chain").read_text() == "chain"
    )


def test_a_copy_that_did_not_change_is_neither_read_nor_copied_again(node, made, monkeypatch):
    node("two")
    path = store.ensure_local(store.artefact("stage", "key"))
    before = path.stat().st_ino
    monkeypatch.setattr(artefacts, "digest", lambda folder: pytest.fail("read"))
    assert (store.ensure_local(path) / "a").read_text() == "a" and path.stat().st_ino == before


@pytest.mark.parametrize(
    "harm", [lambda p: (p / "a").write_text("A"), lambda p: (p / "b").unlink()]
)
def test_a_copy_that_was_harmed_is_copied_again(harm, node, made):
    for name in ("one", "two"):
        node(name)
        path = store.ensure_local(store.artefact("stage", "key"))
        harm(path)
        assert store.digest(store.ensure_local(path)) == made.digest


def test_what_is_made_again_replaces_the_copies(node, made):
    node("two")
    store.ensure_local(store.artefact("stage", "key"))
    again = store.commit("stage", "key", folder(node("one"), c="c"), run_id="later")
    node("two")
    assert store.find("stage", "key") == again
    path = store.ensure_local(store.artefact("stage", "key"))
    assert sorted(p.name for p in path.iterdir()) == ["c", "inner"]


@pytest.mark.parametrize("change", ["gone", "shorter", "all gone"])
def test_an_artefact_that_lost_files_has_no_record(change, node, made):
    content = store.artefact("stage", "key") / made.digest
    match change:
        case "gone":
            remote.remove(content / "a")
        case "shorter":
            write(content / "b", b"b")
        case _:
            remote.remove(content)
    assert store.find("stage", "key") is None


@pytest.mark.parametrize("change", ["changed", "all gone"])
def test_what_is_damaged_is_one_line_and_made_again(change, node, made):
    content = store.artefact("stage", "key") / made.digest
    if change == "changed":
        write(content / "b", b"BB")
    else:
        remote.remove(content)
    home = node("two")
    with pytest.raises(BadInput, match="artefacts/stage/key: found files that are missing or"):
        store.ensure_local(store.artefact("stage", "key"))
    assert store.find("stage", "key") is None
    assert list((home / "artefacts" / "stage").iterdir()) == []


def test_what_is_made_again_meanwhile_stays(node, made, monkeypatch):
    """Who copies sees the old content go; the new record is not taken for a damaged one."""
    download = remote.download

    def late(path, source):
        store.commit("stage", "key", folder(node("one"), a="c"), run_id="later")
        node("two")
        download(path, store.artefact("stage", "key"))

    node("two")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "download", late)
        with pytest.raises(OSError, match="was recomputed while it was copied"):
            store.ensure_local(store.artefact("stage", "key"))
    assert store.find("stage", "key").run_id == "later"
    assert (store.ensure_local(store.artefact("stage", "key")) / "a").read_text() == "c"


def test_an_artefact_is_recorded_after_it_is_there(node, made, monkeypatch):
    """Whoever is killed on the way leaves what was there before, and no record of a half."""
    upload = remote.upload

    def half(path, to):
        upload(path, to)
        raise OSError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(remote, "upload", half)
        with pytest.raises(OSError, match="no more"):
            store.commit("stage", "key", folder(node("one"), a="c"), run_id="later")
    assert store.find("stage", "key") == made
    node("two")
    assert (store.ensure_local(store.artefact("stage", "key")) / "b").read_text() == "bb"


def work_of(home, **texts):
    """Returns a folder of unfinished work with folders of one file each."""
    work = store.work("train", "key")
    for name, text in texts.items():
        (work / name).mkdir(parents=True, exist_ok=True)
        (work / name / "state").write_text(text)
    return work


def states(work):
    return {path.parent.name: path.read_text() for path in work.glob("*/state")}


def test_work_goes_on_elsewhere(node):
    work = work_of(node("one"), step1="1")
    (work / "rows").write_text("row")
    store.upload(work / "rows")
    store.mirror(work, work / "step1")
    node("two")
    own = store.work("train", "key")
    store.download(own)
    assert states(own) == {"step1": "1"} and (own / "rows").read_text() == "row"
    assert len(list(own.iterdir())) == 2


def test_a_mirror_follows(node):
    """Removed files go; a new file of the same length replaces the old one."""
    node("one")
    work = work_of(store.home(), step1="1")
    store.mirror(work, work / "step1")
    work_of(store.home(), step2="2")
    store.mirror(work, work / "step2")
    store.evict(work / "step1")
    work_of(store.home(), step2="3")
    store.mirror(work, work / "step2")
    node("two")
    store.download(store.work("train", "key"))
    assert states(store.work("train", "key")) == {"step2": "3"}


def test_what_a_node_has_of_an_earlier_life_goes(node):
    """One machine goes on where another was, not where itself was before."""
    node("one")
    store.upload(work_of(store.home(), last="old") / "last")
    node("two")
    store.upload(work_of(store.home(), last="new") / "last")
    node("one")
    own = work_of(store.home(), last="old", more="old")
    store.download(own / "last")
    store.download(own / "more")
    assert states(own) == {"last": "new"}


def fails(*args, **options):
    raise OSError("no route to host")


def test_a_failed_upload_does_not_lose_the_only_copy(node, monkeypatch):
    """The next start on the node uploads it, and other nodes have it then."""
    node("one")
    work = work_of(store.home(), step1="1")
    store.mirror(work, work / "step1")
    work_of(store.home(), step2="2")
    with monkeypatch.context() as patch:
        patch.setattr(remote.fs, "copy_files", fails)
        with pytest.raises(OSError, match="no route"):
            store.mirror(work, work / "step2")
    store.evict(work)
    store.evict(work.parent)
    assert states(work) == {"step1": "1", "step2": "2"}
    node("two")
    store.download(store.work("train", "key"))
    assert states(store.work("train", "key")) == {"step1": "1"}
    node("one")
    store.download(work)
    assert states(work) == {"step1": "1", "step2": "2"}
    node("two")
    store.download(store.work("train", "key"))
    assert states(store.work("train", "key")) == {"step1": "1", "step2": "2"}
    node("one")
    store.evict(work)
    assert not work.exists()


def test_a_failed_download_leaves_what_is_there(node, monkeypatch):
    node("one")
    work = work_of(store.home(), step1="1")
    store.mirror(work, work / "step1")
    with monkeypatch.context() as patch:
        patch.setattr(remote.fs, "copy_files", fails)
        with pytest.raises(OSError, match="no route"):
            store.download(work)
    assert states(work) == {"step1": "1"}
    assert [path.name for path in work.parent.iterdir()] == ["key"]


def test_what_is_forgotten_is_gone_everywhere(node):
    node("one")
    work = store.work("train", "key")
    work.mkdir(parents=True)
    (work / "state").write_text("1")
    store.upload(work)
    store.forget(work)
    assert not work.exists() and remote.names(work) == set()
    store.forget(work)


def test_nodes_know_their_store(node, monkeypatch, tmp_path):
    node("one").mkdir(parents=True)
    identity = store.identity()
    node("two")
    store.require_same_store(identity)
    assert not store.home().exists()
    with pytest.raises(BadInput, match="EBFLOW_STORAGE: found another store at .* on node"):
        store.require_same_store("0" * 32)
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/elsewhere")
    with pytest.raises(BadInput, match="EBFLOW_STORAGE: found no store at .*elsewhere on node"):
        store.require_same_store(identity)


def test_a_node_on_which_the_folder_is_not_mounted_has_no_store(home, monkeypatch, tmp_path):
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/shared")
    identity = store.identity()
    (tmp_path / "shared").rename(tmp_path / "mount")
    with pytest.raises(BadInput, match="EBFLOW_STORAGE: found no store at .*/shared on node"):
        store.require_same_store(identity)
    (tmp_path / "mount").rename(tmp_path / "shared")
    store.require_same_store(identity)


def test_drivers_that_start_at_once_in_a_new_bucket_know_one_store(node, monkeypatch):
    """The second starts while the first creates what identifies the store, if it creates it."""
    uuid4, identities = uuid.uuid4, []

    def late():
        monkeypatch.setattr(uuid, "uuid4", uuid4)
        node("two")
        identities.append(store.identity())
        node("one")
        return uuid4()

    node("one")
    monkeypatch.setattr(uuid, "uuid4", late)
    identities.append(store.identity())
    node("three")
    assert {*identities, store.identity()} == {identities[0]}


def test_a_storage_that_answers_is_left_alone(node, tmp_path):
    node("one")
    remote.check()
    assert remote.names(store.home()) == set() and not (tmp_path / "shared").exists()


WRONG = {
    "nonsense": ("nonsense", r"found nonsense, expected s3://BUCKET/FOLDER"),
    "another protocol": ("ftp://host/folder", r"found ftp://host/folder, expected s3:"),
    "Google's, nothing there": (
        "gs://anonymous@bucket/folder?endpoint_override=127.0.0.1:9&scheme=http"
        "&retry_limit_seconds=1", r"found gs://bucket/folder \(.*\), expected s3:"),
    "a password": ("s3://me:mine@bucket/folder", "found a user .* AWS_SECRET_ACCESS_KEY"),
    "a password like a path": ("s3://me:mi/ne@bucket/folder", "found a user .* password"),
    "half a host": ("s3://[mine/folder", "found s3://.*, expected s3:"),
    "nothing there": (
        "s3://bucket/folder?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1",
        r"found s3://bucket/folder \(.*\), expected s3:"),
}  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize(("url", "line"), WRONG.values(), ids=WRONG)
def test_a_wrong_storage_is_one_line(url, line, ebflow, home, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EBFLOW_STORAGE", url)
    ended = ebflow("run", "density")
    assert re.match(f"ebflow: EBFLOW_STORAGE: {line}", ended.refusal)
    assert "mine@" not in ended.refusal and not home.exists()


def test_a_missing_bucket_is_one_line(bucket, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EBFLOW_STORAGE", bucket.url.replace("ebflow-tests", "nowhere"))
    with pytest.raises(BadInput, match="found .*nowhere.*, which is no bucket or folder"):
        remote.check()


def test_a_file_as_storage_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{tmp_path}/file")
    with pytest.raises(BadInput, match="EBFLOW_STORAGE: found .*/file, which is no bucket"):
        remote.check()


@pytest.mark.parametrize("place", ["store", "store/inner", "here/runs/density/digits", ""])
def test_a_storage_is_apart_from_the_store_and_the_results(place, ebflow, home, monkeypatch):
    monkeypatch.setenv("EBFLOW_STORAGE", f"file://{home.parent / place}")
    ended = ebflow("run", "density")
    assert "EBFLOW_STORAGE: found file:///" in ended.refusal
    assert ", expected a folder apart from /" in ended.refusal


@pytest.mark.parametrize("uri", ["none", "sqlite:////shared/mlflow.db"])
def test_a_cluster_needs_a_tracking_server(uri, ebflow, home, monkeypatch):
    """Its nodes would all write one SQLite file, over the network."""
    if uri != "none":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        submitted = ebflow("submit", "density", "--dry-run").refusal
        assert submitted.startswith(f"ebflow: MLFLOW_TRACKING_URI: found {uri} on a cluster")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert ebflow("run", "density", "--dry-run").refusal == (
        f"ebflow: MLFLOW_TRACKING_URI: found {uri} on a cluster, expected an MLflow server that "
        "all nodes reach, as http://HOST:5000"
    )


def test_few_lines_know_of_buckets():
    word = re.compile(r"bucket|EBFLOW_STORAGE|(up|down)load\(|mirror\(|evict\(", re.IGNORECASE)
    own, packages = Path(remote.__file__).resolve(), Path(remote.__file__).resolve().parents[2]
    files = [f for name in ("pipelines", "tuning") for f in (packages / name).rglob("*.py")]
    lines = [line for file in files if file != own for line in file.read_text().splitlines()]
    assert len(own.read_text().splitlines()) + sum(map(bool, map(word.search, lines))) <= 230


def test_an_artefact_in_the_storage_is_marked_listed_and_deleted_from_any_node(node):
    key = "0123456789abcdef0123"
    store.commit("stage", key, folder(node("first"), a="a"), run_id="run")
    store.mark_used("stage", key, {"name": "mine"})
    node("second")
    store.mark_used("stage", key)
    assert [values["name"] for _, values in store.provenances()] == ["mine", "mine"]
    (entry,) = store.entries()
    assert 0 < entry.finished <= entry.used and entry.size > len("a" + "deep")
    entry.delete()
    assert not store.entries() and store.find("stage", key) is None
