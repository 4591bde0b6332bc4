"""Write ``docs/reference`` from the code, so that it cannot say what is not so.

usage: python scripts/generate_reference.py

Every page is made whole; a test compares what is committed with what :func:`pages` gives.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from swarm.cli import reference as cli_reference
from swarm.client import reference as client_reference
from swarm.definitions.agent import AgentDefinition
from swarm.definitions.fields import (
    IDENTIFIER_PATTERN,
    NAME_PATTERN,
    VERSION_PATTERN,
    WORKER_LABEL_PATTERN,
)
from swarm.definitions.schemas import agent_schema, workflow_schema
from swarm.definitions.workflow import WorkflowDefinition
from swarm.expressions.expression import MAX_JOINTS
from swarm.expressions.meter import MAX_MADE
from swarm.expressions.scanner import MAX_EXPRESSION_LENGTH, MAX_NESTING
from swarm.expressions.template import compile_template
from swarm.expressions.vocabulary import FILTERS, FILTERS_TO_MAP, TESTS, Word
from swarm.kernel import errors
from swarm.kernel.configuration import ENVIRONMENT_PREFIX
from swarm.kernel.json import JsonObject
from swarm.kernel.settings import MASTER_KEY_VARIABLE, SECRET_PREFIX, SecretStr, known_settings
from swarm.store.sqlite.migration import MIGRATIONS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by `make docs` from the code. Change the code, not this page. -->\n\n"

PATTERNS = {
    IDENTIFIER_PATTERN: "identifier",
    NAME_PATTERN: "name",
    VERSION_PATTERN: "semantic version",
    WORKER_LABEL_PATTERN: "label",
}
"""How the pages call a string that must match a pattern."""


def main() -> int:
    made = pages()
    for name, text in made.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and str(path.relative_to(FOLDER)) not in made:
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")
    return 0


def pages() -> dict[str, str]:
    """Every generated file: its path below ``docs/reference`` and its whole text."""
    return {
        "README.md": GENERATED + index_page(),
        "cli.md": GENERATED + cli_reference.markdown(),
        "settings.md": GENERATED + settings_page(),
        "agent-manifest.md": GENERATED
        + manifest_page("agent.yaml", AgentDefinition, "schemas/agent.schema.json"),
        "workflow-manifest.md": GENERATED
        + manifest_page("workflow.yaml", WorkflowDefinition, "schemas/workflow.schema.json"),
        "errors.md": GENERATED + errors_page(),
        "python-api.md": GENERATED + client_reference.markdown_page(),
        "expressions.md": GENERATED + expressions_page(),
        "database.md": GENERATED + database_page(),
        "schemas/agent.schema.json": json_page(agent_schema()),
        "schemas/workflow.schema.json": json_page(workflow_schema()),
    }


def json_page(document: JsonObject) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def index_page() -> str:
    rows = [
        ("[cli.md](cli.md)", "every command and its options"),
        ("[python-api.md](python-api.md)", "what `import swarm` gives to programs"),
        ("[settings.md](settings.md)", "every setting, its unit and its default"),
        ("[agent-manifest.md](agent-manifest.md)", "every key of `agent.yaml`"),
        ("[workflow-manifest.md](workflow-manifest.md)", "every key of `workflow.yaml`"),
        ("[schemas/](schemas/)", "both manifests as JSON Schema, for editors"),
        ("[expressions.md](expressions.md)", "what may stand inside `${...}`"),
        ("[errors.md](errors.md)", "exit codes and error codes"),
        ("[database.md](database.md)", "tables and columns of `registry.db`"),
    ]
    return "# Reference\n\n" + table(("page", "tells"), rows)


def settings_page() -> str:
    rows = []
    for name, setting in known_settings().items():
        default = show_default(setting.default)
        if name == "max_concurrent_invocations":
            default = "twice the cores"
        meaning = [setting.meaning, bounds([setting.bounds])]
        rows.append(
            (
                f"`{name}`",
                f"`{ENVIRONMENT_PREFIX}{name.upper()}`",
                describe_type(setting.kind),
                default,
                " ".join(filter(None, meaning)),
            )
        )
    return (
        "# Settings\n\n"
        "A setting is read from its environment variable, else from `config.toml` in the home "
        "(`home` itself only from the environment), else it has its default. "
        "`swarm settings` shows the values in force and where each comes from.\n\n"
        + table(("in `config.toml`", "variable", "type", "default", "meaning"), rows)
        + "\n## Other variables\n\n"
        + table(
            ("variable", "meaning"),
            [
                (
                    f"`{SECRET_PREFIX}<NAME>`",
                    "The secret `<NAME>`; it overrides what `swarm secret set` stored. An agent "
                    "gets it only if its manifest requests it and the request was granted.",
                ),
                (
                    f"`{MASTER_KEY_VARIABLE}`",
                    "The master key of secrets: 32 bytes as base64, or several with commas between "
                    "them, the newest first. See `master_key_source`.",
                ),
                ("`NO_COLOR`, `FORCE_COLOR`", "No colours, or colours even in a pipe."),
            ],
        )
    )


def manifest_page(file: str, model: type[BaseModel], schema: str) -> str:
    parts = [
        f"# `{file}`\n",
        f"For editors: [{schema}]({schema}).\n",
        "A key that is not listed here is an error. "
        "An *identifier* is letters, digits and `_`, not starting with a digit; "
        "a *name* is lower-case letters, digits, `.`, `_` and `-`.\n",
        *model_sections(model, "The whole file"),
    ]
    return "\n".join(parts)


def model_sections(model: type[BaseModel], title: str) -> Iterator[str]:
    """One section for ``model`` and one for each model inside it, outermost first."""
    waiting: list[tuple[str, type[BaseModel]]] = [(title, model)]
    seen = {model}
    while waiting:
        heading, current = waiting.pop(0)
        text = (current.__doc__ or "").strip()
        yield f"## {heading}\n\n{text}\n\n{fields_table(current)}"
        for field in current.model_fields.values():
            for inner in models_in(field.annotation):
                if inner not in seen:
                    seen.add(inner)
                    waiting.append((section_name(inner), inner))


def fields_table(model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        meaning = " ".join(filter(None, (field.description or "", bounds(field.metadata))))
        default = "**required**"
        if not field.is_required():
            default = show_default(field.get_default(call_default_factory=True, validated_data={}))
        kind = describe_type(field.annotation, field.metadata)
        rows.append((f"`{field.alias or name}`", kind, default, meaning))
    return table(("key", "type", "default", "meaning"), rows)


def section_name(model: type[BaseModel]) -> str:
    return model.__name__.removesuffix("Definition")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def describe_type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in the words of a manifest: ``list of string``, ``integer``, ``object``."""
    pattern = next((m.pattern for m in metadata if getattr(m, "pattern", None)), None)
    if pattern is not None:
        return PATTERNS[str(pattern)]
    if annotation in (None, type(None)):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0], arguments[1:])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [describe_type(part) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is tuple or origin is list:
        return f"list of {describe_type(arguments[0])}"
    if origin is dict:
        value = describe_type(arguments[1])
        return "object" if value == "any value" else f"object of {value}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        name = section_name(annotation)
        return f"[{name}](#{name.lower()})"
    plain = {str: "string", int: "integer", float: "number", bool: "true or false", Path: "path"}
    plain |= {SecretStr: "string"}
    return plain.get(annotation, "any value")


def bounds(metadata: Sequence[Any]) -> str:
    """``At least 1.``, ``At most 100.`` and the like."""
    words = {"ge": "At least", "gt": "More than", "le": "At most", "lt": "Less than"}
    found = [
        f"{word} {getattr(limit, key)}."
        for limit in metadata
        for key, word in words.items()
        if getattr(limit, key, None) is not None
    ]
    return " ".join(found)


def show_default(value: Any) -> str:
    if isinstance(value, BaseModel) or value in (None, (), {}, ""):
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"


def expressions_page() -> str:
    def words(vocabulary: dict[str, Word]) -> list[Sequence[str]]:
        rows: list[Sequence[str]] = []
        for name, word in sorted(vocabulary.items()):
            template = compile_template("${" + word.example + "}", where=name)
            gives = json.dumps(template.evaluate({"inputs": {}}))
            rows.append((f"`{name}`", word.meaning, f"`{word.example}`", f"`{gives}`"))
        return rows

    return (
        "# Expressions\n\n"
        "What may stand inside `${...}`; [the concept](../concepts/workflows-and-expressions.md) "
        "says where and how.\n\n"
        "Values: names with dots (`inputs.text`), `rows[0]`, `rows[1:]`, text in quotes, numbers, "
        "`true`, `false`, `none`, `[1, 2]`, `{'key': 1}`. From tight to loose: filters `|` and "
        "tests `is`, `-x`, `**`, `* / // %`, `~` (joins as text), `+ -`, comparisons and `in`, "
        "`not`, `and`, `or`, `a if b else c`.\n\n"
        "There are no functions, methods or statements. `*` takes numbers only, `~` no null. "
        "A name that is not there is an error, except before `is defined` and `default`.\n\n"
        f"An expression has at most {MAX_EXPRESSION_LENGTH} characters, {MAX_NESTING} brackets "
        f"inside each other and {MAX_JOINTS} of `+` and `~`; what a template makes is at most "
        f"{MAX_MADE // 2**20} MiB, and the setting `SWARM_EXPRESSION_FUEL` bounds its steps.\n\n"
        "## Filters\n\n"
        + table(("filter", "gives", "example", "result"), words(FILTERS))
        + "\n`map` applies only filters that make an entry no larger: "
        + ", ".join(f"`{name}`" for name in sorted(FILTERS_TO_MAP))
        + ".\n\n## Tests\n\nArguments of tests stand in brackets.\n\n"
        + table(("test", "true for", "example", "result"), words(TESTS))
    )


def errors_page() -> str:
    exits = {
        errors.ExitCode.OK: "it worked",
        errors.ExitCode.FAILED: "the run or the invocation failed",
        errors.ExitCode.INVALID: "the command line, a manifest or a value is malformed",
        errors.ExitCode.NOT_FOUND: "no such agent, workflow, run or file",
        errors.ExitCode.REFUSED: "a rule or a missing grant says no",
        errors.ExitCode.ENVIRONMENT: "this machine or installation cannot do it",
        errors.ExitCode.INTERRUPTED: "interrupted from the keyboard",
    }
    kinds: list[type[errors.SwarmError]] = [errors.SwarmError, *subclasses(errors.SwarmError)]
    rows = [(f"`{kind.code}`", str(int(kind.exit_code)), error_meaning(kind)) for kind in kinds]
    return (
        "# Exit codes and errors\n\n## Exit codes\n\n"
        + table(("code", "meaning"), [(str(int(code)), text) for code, text in exits.items()])
        + "\n## Error codes\n\n"
        "With `--json` an error is an object `{code, message, where, remedy}`; "
        "`invalid_definition` has `problems` too, one for each thing found.\n\n"
        + table(("`code`", "exit code", "meaning"), rows)
    )


def subclasses(kind: type[errors.SwarmError]) -> Iterator[type[errors.SwarmError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


def error_meaning(kind: type[errors.SwarmError]) -> str:
    """What the tree in the module's docstring says of an error."""
    line = re.search(rf"\b{kind.__name__} +(?:\d+ +)?(\S.*)", errors.__doc__ or "")
    if line is None:
        raise ValueError(f"the tree in {errors.__name__} lacks {kind.__name__}")
    meaning = line[1].replace("``", "`")
    return f"{meaning[0].upper()}{meaning[1:]}."


def database_page() -> str:
    parts = [
        "# Database\n",
        "`registry/registry.db` in the home is an SQLite database; read it with `sqlite3`. "
        "JSON columns hold JSON text; times are UTC text. Write to it only through Swarm.\n",
        f"Schema version: {MIGRATIONS[-1].version}. Before an upgrade, Swarm copies the file to "
        "`registry.db.backup-<version>-<time>`.\n",
    ]
    with closing(sqlite3.connect(":memory:")) as database:
        for migration in MIGRATIONS:
            database.executescript(migration.script)
        names = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
        for (name,) in sorted(names.fetchall()):
            parts.append(f"## {name}\n\n{columns_table(database, name)}")
    return "\n".join(parts)


def columns_table(database: sqlite3.Connection, name: str) -> str:
    foreign = {
        row[3]: f"{row[2]}.{row[4]}" for row in database.execute(f"PRAGMA foreign_key_list({name})")
    }
    rows = []
    for _, column, kind, not_null, default, key in database.execute(f"PRAGMA table_info({name})"):
        notes = ["primary key"] if key else []
        notes += ["not null"] if not_null else []
        notes += [f"refers to {foreign[column]}"] if column in foreign else []
        rows.append((f"`{column}`", kind, f"`{default}`" if default else "", ", ".join(notes)))
    return table(("column", "type", "default", ""), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    text = "".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n"
        for line in lines
    )
    return re.sub(r" {2,}\|", " |", text)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
