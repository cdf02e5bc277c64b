"""Whatever a configuration file holds, it is a configuration or one line."""

import pytest

from pipelines.config.files import dump, overlaid, read

from .campaign import cases, hunt, refused
from .yamls import BASES, changed, monsters, spoilt

pytestmark = pytest.mark.timeout(1800)


@cases(750)
def test_files(count, tmp_path):
    """A file that was read can be written, and is the same when it is read again."""
    path, again = tmp_path / "config.yaml", tmp_path / "again.yaml"

    def config_files(case):
        name, text = case
        path.write_bytes(text)
        messages = []
        with refused(str(path), messages):
            config = overlaid(BASES[name], read(path), path)
            again.write_text(dump(config))
            assert overlaid(BASES[name], read(again), again) == config
        return messages or None

    hunt(config_files, changed() | spoilt() | monsters(), count)


@cases(75)
def test_commands(count, tmp_path, ebflow, home):
    """A dry run on a file ends well, or with code 2 and one line; it writes nothing."""
    path = tmp_path / "config.yaml"

    def commands(case):
        name, text = case
        path.write_bytes(text)
        result = ebflow("run", name, "--config", path, "--dry-run")
        assert result.code in (0, 2) and len(result.err) == (result.code == 2), result.err
        assert not home.exists() and not list((home.parent / "here").iterdir())
        return result.err or None

    hunt(commands, changed() | spoilt(), count)
