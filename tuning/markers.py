"""Which searches have begun and not ended: each marks its folder in the store."""

from pathlib import Path

from ebflow.files import write_text
from pipelines import store
from pipelines.config import Section, canonical
from tuning.config import SearchConfig

FILE = "begun"


def mark(config: SearchConfig, base: Section, work: Path) -> None:
    """Marks the folder that an unfinished search goes on from."""
    write_text(work / FILE, _text(config, base))


def begun(config: SearchConfig, base: Section) -> bool:
    """Returns whether a search of this kind was interrupted."""
    marks = (store.home() / "work" / "search").glob(f"*/{FILE}")
    return any(path.read_text() == _text(config, base) for path in marks)


def _text(config: SearchConfig, base: Section) -> str:
    return f"{canonical(config)}\n{canonical(base)}\n"
