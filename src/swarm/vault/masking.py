"""Keeps secrets out of text that comes back, also when they come back encoded.

Every form that a value commonly takes is looked for as plain text: as it is, its lines, JSON,
Python and shell quoting, HTML, percent-encoding, hexadecimal, and base64 in both alphabets. Within
longer base64 (``user:password``) a value stands at one of three offsets, where other characters
stand for it (RFC 4648, section 4); each offset has a core that only the value decides, and the
neighbours that it shares with others are blotted out with it.

Text that was cut to a limit may begin or end within a form; six characters of it are recognised.

What this cannot find: a value that was encrypted, compressed, reversed or split.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import string
import urllib.parse
from collections.abc import Iterator

from swarm.kernel.json import JsonValue
from swarm.kernel.redaction import add_redaction

MASK = "********"
SHORTEST_MASKED = 4
"""Characters; masking shorter values would make noise of ordinary text."""
SHORTEST_ENCODED = 6
"""Characters of an encoded form, and of one line of a value: shorter ones occur by chance."""
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
"""A part of a value that is masked by itself: no quoting changes it, however often it is done."""
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/-_")
_BASE64_LINES = (64, 76)
"""Where programs break lines of base64 (RFC 7468, RFC 2045)."""


class Masks:
    """The secrets that were handed out, and all the forms that they may come back in."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._forms: set[str] = set()
        self._cores: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, value: str) -> None:
        """Mask ``value`` from now on, unless it is too short."""
        if value in self._values or len(value) < SHORTEST_MASKED:
            return
        self._values.add(value)
        self._forms.add(value)
        self._forms.update(form for form in _forms(value) if len(form) >= SHORTEST_ENCODED)
        cores = _base64_cores(value.encode("utf-8", "surrogatepass"))
        self._cores.update(core for core in cores if len(core) >= SHORTEST_ENCODED)

    def text(self, text: str, *, cut_start: bool = False, cut_end: bool = False) -> str:
        """``text`` with every form of every secret blotted out.

        All are looked for in the text as it came: what one form blots out may be a part of another.

        Args:
            text: what came back.
            cut_start: its beginning may be the end of a secret: what was before is gone.
            cut_end: its end may be the beginning of a secret.
        """
        spans = [span for form in self._forms if form in text for span in _spans(form, text)]
        for core in self._cores:
            if core in text:
                spans += [_with_neighbours(text, *span) for span in _spans(core, text)]
        for form in (*self._forms, *self._cores) if cut_start or cut_end else ():
            spans += _cut_spans(form, text, cut_start, cut_end)
        return _blotted(text, spans) if spans else text

    def value(self, value: JsonValue) -> JsonValue:
        """A JSON value with secrets blotted out of its strings and keys; a number that shows one
        becomes the mask."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if self.text(shown := str(value)) == shown else MASK
        return value


def _spans(form: str, text: str) -> Iterator[tuple[int, int]]:
    """Where ``form`` is; several that overlap are one."""
    start = end = -1
    at = text.find(form)
    while at >= 0:
        if at > end:
            if end >= 0:
                yield start, end
            start = at
        end = at + len(form)
        at = text.find(form, at + 1)
    if end >= 0:
        yield start, end


class HeldSecrets:
    """Every value that this process has sealed, opened or handed out, for its crash reports.

    Only values are kept; their forms are made when a report is written.
    """

    def __init__(self) -> None:
        self._values: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, value: str) -> None:
        if not self._values:
            add_redaction(self.redacted)
        self._values.add(value)

    def redacted(self, text: str) -> str:
        masks = Masks()
        for value in self._values:
            masks.add(value)
        return masks.text(text)


HELD = HeldSecrets()


def _cut_spans(form: str, text: str, at_start: bool, at_end: bool) -> Iterator[tuple[int, int]]:
    """Where ``text`` begins with the end of ``form``, or ends with its beginning."""
    if at_start and (known := form[-SHORTEST_ENCODED:]):
        end = text.rfind(known, 0, len(form) - 1) + len(known)
        while end >= len(known):
            if form.endswith(text[:end]):
                yield 0, end
                break
            end = text.rfind(known, 0, end - 1) + len(known)
    if at_end and (known := form[:SHORTEST_ENCODED]):
        start = text.find(known, max(len(text) - len(form) + 1, 0))
        while start >= 0:
            if form.startswith(text[start:]):
                yield start, len(text)
                break
            start = text.find(known, start + 1)


def _with_neighbours(text: str, start: int, end: int) -> tuple[int, int]:
    """The span of a core with the base64 characters that its first and last bits stand in."""
    if start > 0 and text[start - 1] in _BASE64:
        start -= 1
    if end < len(text) and text[end] in _BASE64:
        end += 1
    while end < len(text) and text[end] == "=":
        end += 1
    return start, end


def _blotted(text: str, spans: list[tuple[int, int]]) -> str:
    """``text`` with one mask for each run of overlapping spans."""
    kept: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            kept += [text[done:start], MASK]
        done = max(done, end)
    return "".join([*kept, text[done:]])


def _forms(value: str) -> Iterator[str]:
    """The forms of a value that are found as they stand."""
    data = value.encode("utf-8", "surrogatepass")
    lines = [line.strip() for line in value.splitlines()]
    yield from lines if len(lines) > 1 else ()
    yield value.strip()
    yield from _RUN.findall(value)
    for quoted in {*_quoted(value)}:
        yield quoted
        yield from _quoted_in_code(quoted)
    for separator in ("", ":", " ", "-"):
        digits = data.hex(separator) if separator else data.hex()
        yield digits
        yield digits.upper()
    yield "".join(f"\\x{byte:02x}" for byte in data)
    yield from _base64_whole(data)


def _quoted(value: str) -> Iterator[str]:
    """The value as it stands within a text of some language, without the quotes around it."""
    data = value.encode("utf-8", "surrogatepass")
    yield from _quoted_in_code(value)
    yield repr(data)[2:-1]
    yield value.encode("unicode_escape").decode("ascii")
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield shlex.quote(value)[1:-1]
    for quoted in (
        urllib.parse.quote(data, safe=""),
        urllib.parse.quote(data),
        urllib.parse.quote_plus(data),
        "".join(f"%{byte:02X}" for byte in data),
    ):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
        yield quoted.replace("%", "%25")


def _quoted_in_code(value: str) -> Iterator[str]:
    """As JSON and Python quote it. They also quote what was quoted before: JSON in JSON, say."""
    for escaped in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        inner = escaped[1:-1]
        yield inner
        yield inner.replace("/", "\\/")
    yield repr(value)[1:-1]
    # Which quotes Python puts around a longer text, and so escapes, depends on that text.
    for quote in "\"'":
        yield repr(f"{value}{quote}")[1:-2].removesuffix("\\")


def _base64_whole(data: bytes) -> Iterator[str]:
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        text = encoded.decode("ascii")
        yield text
        yield text.rstrip("=")
        for width in _BASE64_LINES:
            if len(text) > width:
                yield from (text[at : at + width] for at in range(0, len(text), width))


def _base64_cores(data: bytes) -> Iterator[str]:
    """What every base64 text has in it that has ``data`` in it, for each offset and alphabet."""
    for offset in range(3):
        # Characters that other bytes have a part in: the first ones, and an unfilled last group.
        first = (8 * offset + 5) // 6
        last = 8 * (offset + len(data)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * offset + data).decode("ascii")[first:last]
