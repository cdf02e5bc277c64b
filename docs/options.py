"""The directive ``options``: tables of the options of a command, from the command's own parser."""

import argparse
import re
import warnings
from pkgutil import resolve_name

import tyro
from sphinx.util.docutils import SphinxDirective

from pipelines.cli.main import COMMANDS
from pipelines.cli.run import RecipeOptions, RunOptions, option_types
from pipelines.config import recipes
from tuning.config import SearchConfig

HEAD = "| option | values | default | meaning |\n|---|---|---|---|\n"
HELP = re.compile(r"(.*?) ?\((?:default: (.*)|required)\)", re.DOTALL)


def options_of(command: str) -> object:
    """Returns the function or the type whose options a command parses."""
    if command == "run density":
        return RecipeOptions[option_types(recipes.digits())]
    if command == "tune density":  # besides those of `run density`
        return option_types(SearchConfig())
    target = resolve_name(COMMANDS[command][0])
    return RunOptions[option_types(target.config())] if command.startswith("run ") else target


def tables(command: str) -> str:
    """Returns Markdown with a table for each group of options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(options_of(command))
    groups = ["".join(map(row, group._group_actions)) for group in parser._action_groups]
    return "\n".join(HEAD + rows for rows in groups if rows)


def row(action: argparse.Action) -> str:
    """Returns the row of an option; nothing for ``--help``."""
    if "--help" in action.option_strings:
        return ""
    text, default = HELP.fullmatch(action.help or "()").groups()
    name = next(iter(action.option_strings), action.dest.rpartition(".")[2])
    values = "" if action.metavar == "MODEL" else (action.metavar or "").replace("{None}", "None")
    cells = (f"`{name}`", re.sub(r"[{}]", "", values).replace(",", ", "), default or "", text)
    escaped = (re.sub(r"([|*\[\]])", r"\\\1", " ".join(cell.split())) for cell in cells)
    return f"| {' | '.join(escaped)} |\n"


# Now, because autodoc reloads modules, after which pydantic fails.
TABLES = {command: tables(command) for command in COMMANDS.keys() - {"submit", "--version"}}


class Options(SphinxDirective):
    """Writes the options of the command that is its argument."""

    required_arguments, final_argument_whitespace = 1, True
    def run(self) -> list:
        tables = self.parse_text_to_nodes(TABLES[self.arguments[0]])
        for table in tables:
            table["classes"].append("options")  # site.css shows it otherwise on phones
        return tables
