"""Finds ``${...}`` in text, and the tokens inside.

MiniJinja never sees a whole text: its own scanner would also run ``{% %}`` and ``{{ }}``. This one
knows quotes and braces, so an expression may hold ``}`` in strings and nested mappings, and ``$${``
writes a literal ``${``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from swarm.kernel.errors import ExpressionError

MAX_EXPRESSION_LENGTH = 2_000
MAX_NESTING = 32

_OPENING = "${"
_ESCAPE = "$${"
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>0[xXoObB][0-9A-Fa-f_]+|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][-+]?[0-9]+)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<operator>\*\*|//|==|!=|<=|>=|[-+*/%~|.,:=<>(){}\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)

TokenKind = Literal["string", "number", "name", "operator"]


@dataclass(frozen=True, slots=True)
class Token:
    """One word of an expression; ``start`` counts characters from the expression's begin."""

    kind: TokenKind
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A ``${...}``: what stands inside, and where that begins in the whole text."""

    source: str
    start: int
    tokens: tuple[Token, ...]


def scan(text: str, where: str) -> list[str | Embedded]:
    """Split a text into literal parts (escapes resolved, none empty) and expressions.

    Raises:
        ExpressionError: an expression has no end, is empty or too long, or holds a character that
            no expression can hold.
    """
    parts: list[str | Embedded] = []
    literal: list[str] = []
    at = 0
    while (found := text.find(_OPENING, at)) >= 0:
        if found > at and text[found - 1] == "$":
            literal.append(text[at : found - 1] + _OPENING)
            at = found + len(_OPENING)
            continue
        literal.append(text[at:found])
        embedded = _embedded(text, found + len(_OPENING), where)
        if joined := "".join(literal):
            parts.append(joined)
        literal.clear()
        parts.append(embedded)
        at = embedded.start + len(embedded.source) + 1
    literal.append(text[at:])
    if joined := "".join(literal):
        parts.append(joined)
    return parts


def escape(text: str) -> str:
    """Write ``text`` so that :func:`scan` gives it back as one literal."""
    return text.replace(_OPENING, _ESCAPE)


def _embedded(text: str, start: int, where: str) -> Embedded:
    """Read the expression that begins at ``start``, up to the brace that closes it."""
    tokens: list[Token] = []
    closers: list[str] = []
    at = start
    while at < len(text):
        character = text[at]
        if character == "}" and not closers:
            return _finished(text, start, at, tokens, where)
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unreadable(text, start, at, where)
        if match.lastgroup != "space":
            token = Token(match.lastgroup, match.group(), at - start)  # type: ignore[arg-type]
            tokens.append(token)
            _follow_brackets(token, closers, text, start, where)
        at = match.end()
        if at - start > MAX_EXPRESSION_LENGTH:
            raise ExpressionError(
                f"the expression {_shown(text, start)} is longer than {MAX_EXPRESSION_LENGTH} "
                f"characters or is never closed",
                where=where,
                remedy="close it with } or move the work into an agent",
            )
    missing = closers[-1] if closers else "}"
    raise ExpressionError(
        f"the expression {_shown(text, start)} (character {start - 1}) is never closed: "
        f"`{missing}` is missing",
        where=where,
        remedy="close it, or write $${ for a literal ${",
    )


def _finished(text: str, start: int, end: int, tokens: list[Token], where: str) -> Embedded:
    if not tokens:
        raise ExpressionError(
            f"the expression at character {start - 1} is empty",
            where=where,
            remedy="name a value, as in ${inputs.message}, or write $${ for a literal ${",
        )
    return Embedded(text[start:end], start, tuple(tokens))


def _follow_brackets(token: Token, closers: list[str], text: str, start: int, where: str) -> None:
    if token.kind != "operator":
        return
    if token.text in _CLOSER:
        closers.append(_CLOSER[token.text])
        if len(closers) > MAX_NESTING:
            raise ExpressionError(
                f"the expression {_shown(text, start)} nests more than {MAX_NESTING} brackets",
                where=where,
                remedy="move the work into an agent",
            )
    elif token.text in ")]}" and (not closers or closers.pop() != token.text):
        raise ExpressionError(
            f"`{token.text}` at character {start + token.start + 1} closes nothing in the "
            f"expression {_shown(text, start)}",
            where=where,
            remedy="balance the brackets",
        )


def _unreadable(text: str, start: int, at: int, where: str) -> ExpressionError:
    if text[at] in "\"'":
        message = f"the string at character {at + 1} of {_shown(text, start)} is never closed"
        return ExpressionError(message, where=where, remedy=f"close it with {text[at]}")
    return ExpressionError(
        f"`{text[at]}` at character {at + 1} has no meaning in the expression "
        f"{_shown(text, start)}",
        where=where,
        remedy="see the reference of expressions; text belongs in quotes",
    )


def _shown(text: str, start: int) -> str:
    """The begin of an expression, for messages."""
    source = text[start - 2 : start + 60]
    line = source.splitlines()[0]
    return f"`{line}`" if line == text[start - 2 :] else f"`{line}...`"
