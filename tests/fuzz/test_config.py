"""Whatever a configuration file holds, it is a configuration or one line."""

import pytest

from pipelines.config_files import dump, load, peek

from .campaign import cases, hunt, refused
from .yamls import BASES, changed, monsters, spoilt

pytestmark = pytest.mark.timeout(1800)


@cases(2000)
def test_files(count, tmp_path):
    """What is read can be written, and is the same when it is read again."""
    path, again = tmp_path / "config.yaml", tmp_path / "again.yaml"

    def config_files(case):
        name, text = case
        path.write_bytes(text)
        told = []
        with refused(str(path), told):
            peek(path)
            config = load(path, BASES[name])
            again.write_text(dump(config))
            assert load(again, BASES[name]) == config
        return told or None

    hunt(config_files, changed() | spoilt() | monsters(), count)
