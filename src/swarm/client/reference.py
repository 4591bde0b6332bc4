"""The page about the public Python API: what ``swarm`` exports, by its docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from enum import Enum

from msgspec import Struct

import swarm
from swarm.engine import events
from swarm.engine.events import RunEvent
from swarm.kernel.settings import Settings

GROUPS = {
    "Clients": ("Client", "SyncClient", "Reply", "SentEvent", "GuestListener"),
    "Runs": ("RunHandle", "SyncRunHandle", "RunEvent", "LogLine"),
    "Values": ("File", "Isolation", "Settings"),
    "Records": (
        "RunRecord",
        "RunState",
        "StepRecord",
        "StepState",
        "InvocationRecord",
        "AgentRecord",
        "WorkflowRecord",
    ),
}
"""The order of the page; whatever is left over are the errors."""

INTRODUCTION = """\
# Python API

What `import swarm` gives; the guide is
[Use Swarm from Python](../how-to/use-swarm-from-python.md). A name is imported when it is first
used; all are typed (`py.typed`). `JsonValue` and `JsonObject` are plain JSON: None, booleans,
numbers, text, lists, and dictionaries with text as keys. Names that
are not on this page may change without notice.
"""
MADE_BY_USERS = frozenset({"Client", "SyncClient"})
"""All others are given."""
WIDTH = 100
_SECTIONS = ("Args:", "Raises:", "Returns:")


def markdown_page() -> str:
    """The whole page.

    Raises:
        ValueError: something public has no docstring.
    """
    grouped = {name for names in GROUPS.values() for name in names}
    errors = [name for name in swarm.__all__ if name not in grouped and name != "__version__"]
    parts = [INTRODUCTION]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += class_parts(getattr(swarm, name))
    parts.append("## Errors\n")
    parts.append("Exit codes and the codes of errors: [errors.md](errors.md).\n")
    for name in errors:
        parts += class_parts(getattr(swarm, name))
    return "\n".join(parts)


def class_parts(kind: type) -> Iterator[str]:
    """A class: what it is, what makes it, its fields and its methods."""
    bases = [base.__name__ for base in kind.__bases__ if base.__name__ in swarm.__all__]
    yield f"### `{kind.__name__}`\n"
    if bases:
        yield f"A kind of `{bases[0]}`.\n"
    yield markdown(docstring(kind, kind.__name__))
    if kind.__name__ in MADE_BY_USERS:
        maker = vars(kind)["__init__"]
        yield code(kind.__name__, maker)
        yield markdown(docstring(maker, f"{kind.__name__}()"))
    if issubclass(kind, Enum):
        yield "Values: " + ", ".join(f"`{member.value}`" for member in kind) + ".\n"
    elif kind is Settings:
        yield "Every setting, its unit and its default: [settings.md](settings.md).\n"
    elif fields := list(field_lines(kind)):
        yield "\n".join(fields) + "\n"
    if kind is RunEvent:
        yield "Kinds:\n\n" + event_table()
    for name, member in vars(kind).items():
        if name.startswith("_") or not is_method(member):
            continue
        described = docstring(member, f"{kind.__name__}.{name}")
        if isinstance(member, property):
            yield f"**`{name}`** (property): {markdown(described)}"
        else:
            yield code(name, member)
            if not hasattr(member, "__wrapped__"):  # else it is told with the asynchronous one
                yield markdown(described)


def event_table() -> str:
    """The kinds of events and what their ``data`` holds, from the table below ``EventKind``."""
    module = ast.parse(inspect.getsource(events))
    tables = [
        node.value.value
        for node in module.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    (table,) = [str(text) for text in tables if "kind " in str(text)]
    rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines()]
    pairs = [row for row in rows if len(row) == 2 and not row[0].startswith("==")]
    head, *body = [(kind.strip(), inline(told)) for kind, told in pairs]
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    for kind, told in body:
        escaped = told.replace("|", "\\|")
        lines.append(f"| `{kind}` | {escaped} |")
    return "\n".join(lines) + "\n"


def is_method(member: object) -> bool:
    return isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)


def docstring(thing: object, name: str) -> str:
    """The docstring of its own.

    Raises:
        ValueError: there is none.
    """
    own = thing.__doc__ if not isinstance(thing, classmethod) else thing.__func__.__doc__
    if not own or (isinstance(thing, type) and "__doc__" not in vars(thing)):
        raise ValueError(f"{name} is public and has no docstring")
    if dataclasses.is_dataclass(thing) and own.startswith(f"{getattr(thing, '__name__', '')}("):
        raise ValueError(f"{name} is public and has no docstring")  # what @dataclass makes up
    return inspect.cleandoc(own)


def field_lines(kind: type) -> Iterator[str]:
    """The fields of a dataclass, a record or a typed dictionary, with what stands below each."""
    is_record = (
        dataclasses.is_dataclass(kind) or issubclass(kind, Struct) or typing.is_typeddict(kind)
    )
    if not is_record:
        return
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if name.startswith("_"):
            continue
        told = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            told = ": " + inline(" ".join(str(following.value.value).split()))
        yield f"- `{name}` (`{ast.unparse(statement.annotation)}`){told}"


def code(name: str, function: Callable[..., object] | classmethod[object, ..., object]) -> str:
    """A signature as Python code."""
    called = function.__func__ if isinstance(function, classmethod) else function
    signature = inspect.signature(called)
    arguments = list(shown_arguments(signature))
    returned = "" if name[0].isupper() else f" -> {unquoted(signature.return_annotation)}"
    prefix = "await " if inspect.iscoroutinefunction(called) else ""
    prefix = "async for ... in " if inspect.isasyncgenfunction(called) else prefix
    line = f"{prefix}{name}({', '.join(arguments)}){returned}"
    if len(line) > WIDTH:
        lines = "".join(f"    {argument},\n" for argument in arguments)
        line = f"{prefix}{name}(\n{lines}){returned}"
    return f"```python\n{line}\n```\n"


def shown_arguments(signature: inspect.Signature) -> Iterator[str]:
    """The arguments as they are written in a definition, without ``self``."""
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        default = parameter.default
        given = repr(default)
        if isinstance(default, Enum):
            given = f"{type(default).__name__}.{default.name}"
        written = "" if default is parameter.empty else f" = {given}"
        yield f"{parameter.name}: {unquoted(parameter.annotation)}{written}"


def unquoted(annotation: object) -> str:
    """An annotation as it was written."""
    return str(annotation).removeprefix("'").removesuffix("'")


def inline(text: str) -> str:
    """Docstring markup within a line, as Markdown."""
    text = re.sub(r":(?:class|meth|func|data):`~?\.?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def markdown(text: str) -> str:
    """A docstring as Markdown: its sections as lists, its literal blocks as Python."""
    lines = text.splitlines()
    made: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.strip() not in (*_SECTIONS, "::"):
            made.append(inline(line))
            continue
        block = []
        while index < len(lines) and (not lines[index] or lines[index].startswith(" ")):
            block.append(lines[index])
            index += 1
        body = textwrap.dedent("\n".join(block)).strip("\n")
        if line.strip() == "::":
            made += ["```python", body, "```", ""]
        else:
            made += [f"{line.strip().removesuffix(':')}:", "", *items(body), ""]
    return "\n".join(made).strip() + "\n"


def items(body: str) -> Iterator[str]:
    """``name: meaning`` entries, which go on in indented lines, as a list."""
    entries: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        elif line:
            entries.append(line)
    for entry in entries:
        name, separator, meaning = entry.partition(": ")
        yield f"- `{name}`: {inline(meaning)}" if separator else f"- {inline(entry)}"
