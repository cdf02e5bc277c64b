"""Configuration files as people and programs spoil them: bytes of YAML."""

import copy

import yaml
from hypothesis import strategies as st

from pipelines.config import DensityConfig
from pipelines.config.files import dump
from pipelines.config.recipes import RECIPES
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.paper.config import PaperConfig
from pipelines.sample_complexity.config import ComplexityConfig

from .values import spoiled

# What a file goes over, by pipeline
BASES = {
    "density": DensityConfig(),
    "paper": PaperConfig(),
    "gradient-alignment": AlignmentConfig(),
    "sample-complexity": ComplexityConfig(),
}

FILES = [*BASES.items(), *(("density", recipe()) for recipe in RECIPES.values())]

# What YAML reads in a way of its own, or not at all
TOKENS = (
    "&a ", "*a", "*b", "<<: ", "!!int x", "!!float x", "!!bool maybe", "!!timestamp x",
    "!!binary ä", "!!python/object/apply:os.system ['false']", "!!python/name:os.system",
    "!x ", "!!set ", "!!omap ", "? ", "? [1]\n", "- ", "[", "]", "{", "}", "{{", "|", ">", "'",
    '"', '"\\ud800"', '"\\x00"', "\0", "\t", "\x85", "\ufeff", "2001-99-99",
    "2001-12-14t21:59:43.10-05:00", "1:60:99", "0o9", "0x", "0b", "1_0", ".", ".inf", "-.inf",
    ".nan", "~", "%YAML 9.9\n", "---\n", "...\n", "--- x", "#", ": ", "=", "@", "`", "9" * 5000,
    "1e999", "\n", "  ",
)  # fmt: skip


def _numbers():
    whole = st.integers() | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**400])
    return whole | st.floats() | st.sampled_from([1e-320, 1e308, 0.5, 1.0])


WORDS = ["", " ", *"x nan none None ssm ../.. / ~ a/b ä \x00 \u202e".split(" "), "\n", "x" * 5000]


def _scalars():
    plain = st.none() | st.booleans() | st.sampled_from(WORDS) | st.text(max_size=8)
    return plain | _numbers() | st.binary(max_size=4) | st.dates() | st.datetimes()


KEYS = st.text(max_size=4) | st.integers() | st.none() | st.booleans() | st.dates()


def _nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)


VALUES = st.recursive(_scalars(), _nested, max_leaves=6)


def _places(tree):
    """Yields every key of nested mappings with the mapping that has it."""
    for key, inner in tree.items():
        yield tree, key
        if isinstance(inner, dict):
            yield from _places(inner)


@st.composite
def changed(draw):
    """A pipeline's name, and a real file of it in which up to three entries are others."""
    name, config = draw(st.sampled_from(FILES))
    tree = copy.deepcopy(config.model_dump(mode="json"))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, *draw(st.sampled_from(list(_places(tree)))))
    text = yaml.safe_dump(tree, allow_unicode=draw(st.booleans()))
    return name, text.encode("utf-8", "surrogatepass")


def _change(draw, inner, key):
    kind = draw(st.sampled_from(["value", "value", "value", "renamed", "new"]))
    if kind == "value":
        inner[key] = draw(VALUES)
    elif kind == "renamed":
        names = [f"{key}s", str(key)[:-1], str(key).upper(), f" {key}", f"{key}.x"]
        inner[draw(st.sampled_from(names))] = inner.pop(key)
    else:
        names = st.text(max_size=6) | st.integers() | st.none() | st.dates()
        inner[draw(names)] = draw(VALUES)


@st.composite
def spoilt(draw):
    """A pipeline's name, and a real file of it of which some bytes are changed."""
    name, config = draw(st.sampled_from(FILES))
    text = dump(config).encode()
    for _ in range(draw(st.integers(1, 4))):
        text = spoiled(draw, text, [text], (0, len(text)), st.sampled_from(TOKENS).map(str.encode))
    return name, text


MONSTERS = {
    "itself": lambda n: "train: &a [*a]",
    "itself as a section": lambda n: "train: &a {lr: *a, train: *a}",
    "itself as a key": lambda n: "&a ? *a : 1",
    "deep lists": lambda n: "seed: " + "[" * 40 * n,
    "deep closed lists": lambda n: "seed: " + "[" * 40 * n + "]" * 40 * n,
    "deep mappings": lambda n: "\n".join(f"{' ' * k}a:" for k in range(40 * n)),
    "wide": lambda n: "\n".join(f"k{k}: {k}" for k in range(40 * n)),
    "long name": lambda n: "x" * 400 * n + ": 1",
    "long value": lambda n: "seed: " + "x" * 400 * n,
    "long number": lambda n: "seed: " + "9" * 400 * n,
    "long line of spaces": lambda n: " " * 400 * n,
    "many columns": lambda n: "data: {columns: [" + "x, " * 40 * n + "]}",
    "many documents": lambda n: "---\nseed: 1\n" * n,
    "twice": lambda n: "seed: 1\n" * (n + 1),
    "a key twice": lambda n: "train: {lr: 1, lr: 2}\n",
    "too large": lambda n: "# x\n" * 100_000 * n,
}


@st.composite
def monsters(draw):
    """Files that are small to write and large to read, or that no one would write."""
    name = draw(st.sampled_from(sorted(MONSTERS)))
    return "density", MONSTERS[name](draw(st.integers(1, 25))).encode()
