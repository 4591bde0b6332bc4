"""YAML text, read strictly, with the place of every value.

What is read is the part of YAML 1.2 that has one obvious meaning (the core schema): only ``true``
and ``false`` are booleans (``on``, ``yes`` and ``no`` are text), dates are text, and there are no
anchors, aliases, tags, merge keys or second documents. Every breach is a problem with a line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from swarm.kernel.errors import DefinitionError, Problem
from swarm.kernel.json import JsonValue

MAX_SOURCE_BYTES = 1024 * 1024
MAX_VALUES = 1_000_000
"""Values in a document: each takes half a KiB of memory, however short its text."""
MAX_DEPTH = 50
MAX_PROBLEMS = 100

Location = tuple[str | int, ...]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED_INTEGER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


@dataclass(frozen=True, slots=True)
class Source:
    """A document and where each of its values stands."""

    data: JsonValue
    file: str
    positions: Mapping[Location, tuple[int, int]] = field(default_factory=dict)

    def position(self, location: Location) -> tuple[int, int]:
        """Line and column (from 1) of a value, or of the nearest value around it."""
        for end in range(len(location), -1, -1):
            if (found := self.positions.get(location[:end])) is not None:
                return found
        return (1, 1)

    def problem(self, location: Location, message: str, remedy: str | None = None) -> Problem:
        """A problem with the value at ``location``."""
        line, column = self.position(location)
        return Problem(message, self.file, line, column, remedy)


def read_yaml(text: str, file: str, max_bytes: int = MAX_SOURCE_BYTES) -> Source:
    """Read one YAML document.

    Args:
        text: the document.
        file: how messages call it.
        max_bytes: how long it may be, in UTF-8. What is read takes up to a hundred times as
            much memory, for the places of its values.

    Raises:
        DefinitionError: not YAML, or YAML that is refused; holds every problem found.
    """
    if len(text) > max_bytes or len(text.encode(errors="replace")) > max_bytes:
        message = f"the file is larger than {max_bytes // 1024} KiB"
        raise DefinitionError([Problem(message, file, remedy="move data out of the manifest")])
    reader = _Reader(text, file)
    data = reader.read()
    if reader.problems:
        raise DefinitionError(reader.problems)
    return Source(data, file, reader.positions)


@dataclass(slots=True)
class _Open:
    """A mapping or sequence that is being read."""

    location: Location
    value: dict[str, JsonValue] | list[JsonValue]
    key: str | None = None
    expects_key: bool = True
    ignored_keys: int = 0


class _Reader:
    """Builds plain data from parser events, without recursion."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.problems: list[Problem] = []
        self.positions: dict[Location, tuple[int, int]] = {}
        self._stack: list[_Open] = []
        self._documents = 0
        self._root: JsonValue = None

    def read(self) -> JsonValue:
        try:
            for event in yaml.parse(self.text, Loader=_Loader):
                if not self._take(event):
                    break
        except yaml.YAMLError as error:
            self._syntax_problem(error)
        if not self._documents and not self.problems:
            self.problems.append(
                Problem("the file is empty", self.file, 1, 1, "write the definition into it")
            )
        return self._root

    def _take(self, event: yaml.Event) -> bool:
        """Handle one event; False ends the reading."""
        if len(self.problems) >= MAX_PROBLEMS:
            return False
        if len(self.positions) > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES} values", "move data out of it")
            return False
        if isinstance(event, yaml.DocumentStartEvent):
            return self._start_document(event)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"the alias *{event.anchor} is refused", "write the value out")
            self._add(event, None)
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_decoration(event)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            else:
                return self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()
        return True

    def _start_document(self, event: yaml.Event) -> bool:
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, "the file has a second document", "keep one document per file")
            return False
        return True

    def _refuse_decoration(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self._refuse(event, f"the anchor &{event.anchor} is refused", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"the tag {shown} is refused", "remove the tag; quote text")

    def _open(self, event: yaml.NodeEvent) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"more than {MAX_DEPTH} levels of nesting", "make it flatter")
            return False
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        value: dict[str, JsonValue] | list[JsonValue] = {} if is_mapping else []
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.expects_key:
            self._refuse(event, "a key must be text, not a list or mapping", "use a plain name")
        location = self._add(event, value)
        self._stack.append(_Open(location, value, expects_key=is_mapping))
        return True

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1] if self._stack else None
        value = self._resolve(event)
        is_key = top is not None and isinstance(top.value, dict) and top.expects_key
        if is_key and not isinstance(value, str):
            self._refuse(
                event,
                f"the key {event.value or 'null'} is not text",
                f'write it in quotes: "{event.value}"',
            )
            value = event.value
        self._add(event, value)

    def _add(self, event: yaml.Event, value: JsonValue) -> Location:
        """Put a value (or key) where the parser stands; return the value's location."""
        place = _place(event)
        if not self._stack:
            self.positions[()] = place
            self._root = value
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            location = (*top.location, len(top.value))
            top.value.append(value)
            self.positions[location] = place
            return location
        if top.expects_key:
            top.key = self._new_key(event, top, value)
            top.expects_key = False
            self.positions[(*top.location, top.key)] = place
            return (*top.location, top.key)
        if top.key is None:  # pragma: no cover - the parser always gives a key first
            raise AssertionError("a value came before its key")
        top.value[top.key] = value
        top.expects_key = True
        return (*top.location, top.key)

    def _new_key(self, event: yaml.Event, top: _Open, value: JsonValue) -> str:
        if isinstance(value, str) and value not in top.value:
            return value
        if isinstance(value, str):
            first, _ = self.positions[(*top.location, value)]
            self._refuse(
                event,
                f"the key `{value}` appears twice in one mapping (first on line {first})",
                "keep one of them",
            )
        top.ignored_keys += 1
        return f"\0{top.ignored_keys}"  # never seen: the problem stops the reading's result

    def _resolve(self, event: yaml.ScalarEvent) -> JsonValue:
        """The value of a scalar by the core schema of YAML 1.2 (section 10.3.2)."""
        text: str = event.value
        if event.style or event.tag is not None:
            return self._checked_text(event, text)
        if _NULL.fullmatch(text):
            return None
        if _BOOLEAN.fullmatch(text):
            return text.lower() == "true"
        if _INTEGER.fullmatch(text) or _BASED_INTEGER.fullmatch(text):
            return self._integer(event, text)
        if _NOT_FINITE.fullmatch(text):
            self._refuse(event, f"{text} is not a number that JSON knows", "use a finite number")
            return 0.0
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                self._refuse(event, f"the number {text} is too large", "put it in quotes")
                return 0.0
            return number
        return self._checked_text(event, text)

    def _integer(self, event: yaml.ScalarEvent, text: str) -> int:
        if len(text) <= 30:
            number = int(text, 0) if _BASED_INTEGER.fullmatch(text) else int(text)
            if _SMALLEST <= number <= _LARGEST:
                return number
        self._refuse(event, "the integer does not fit into 64 bits", "put it in quotes")
        return 0

    def _checked_text(self, event: yaml.ScalarEvent, text: str) -> str:
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._refuse(event, "the text holds half of a surrogate pair", "write the character")
            return ""
        return text

    def _refuse(self, event: yaml.Event, message: str, remedy: str) -> None:
        line, column = _place(event)
        self.problems.append(Problem(message, self.file, line, column, remedy))

    def _syntax_problem(self, error: yaml.YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        position = getattr(error, "position", None)
        if mark is None and isinstance(position, int):
            line = self.text.count("\n", 0, position) + 1
        remedy = "check the indentation and the quotes around this line"
        if "\\t" in said or self._is_tab(mark):
            said, remedy = "a tab cannot indent or begin a value", "use spaces"
        elif isinstance(error, yaml.reader.ReaderError):
            said, remedy = "a character that YAML does not allow", "remove it"
        self.problems.append(Problem(f"not valid YAML: {said}", self.file, line, column, remedy))

    def _is_tab(self, mark: yaml.Mark | None) -> bool:
        if mark is None:
            return False
        lines = self.text.splitlines()
        return mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column (from 1) where an event begins."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
