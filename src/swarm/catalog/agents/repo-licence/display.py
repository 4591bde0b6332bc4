"""Text from a stranger's repository, made fit to be shown.

The same file lies in every repo-* package that shows such text; packages share no code at run time.
"""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Characters that are kept of one piece of text."""

INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that hide, reorder or break text: controls, format characters (bidirectional
overrides among them), surrogates, unassigned code points, line and paragraph separators."""


def clean(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, invisible characters written as escapes, cut in the middle if long."""
    text = _cut(text, longest)
    if text.isascii() and text.isprintable():
        return text
    return _cut("".join(map(_visible, text)), longest)


def shown(path: bytes) -> str:
    """A path for people: bytes that are not UTF-8 become U+FFFD."""
    return clean(path.decode("utf-8", "replace"))


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def _visible(character: str) -> str:
    if character == "\t":
        return " "
    if unicodedata.category(character) not in INVISIBLE:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"
