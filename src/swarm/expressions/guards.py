"""Rewrites ``*`` and ``~`` so that their operands are checked.

``'x' * 100000000`` repeats text, and ``~`` quotes what is inside arrays; stacked, a line of text
asks for more memory than any machine has. So each operand goes through a filter: ``a * b`` becomes
``((a)|swarm_number) * ((b)|swarm_number)``. How tightly operators bind is MiniJinja's parser's
(``minijinja/src/compiler/parser.rs``): postfix, filters and ``is``; unary minus; ``**``;
``* / // %``; ``~``; ``+ -``; comparisons; ``not``; ``and``; ``or``; ``if``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.expressions.filters import NUMBER_GUARD, TEXT_GUARD
from swarm.expressions.meter import FilterError
from swarm.expressions.scanner import Token

_FACTOR_OPERATORS = frozenset(["*", "/", "//", "%", "**"])
_LOOSE_OPERATORS = frozenset(["+", "==", "!=", "<", "<=", ">", ">=", "=", ",", ":"])
_LOOSE_WORDS = frozenset(["in", "and", "or", "not", "if", "else"])
_CLOSER = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token, or a bracket with all that it holds."""

    text: str
    is_word: bool = False
    is_operator: bool = False


def guard_operators(source: str, tokens: Sequence[Token]) -> str:
    """The expression to evaluate for ``source``; the same text if there is nothing to guard.

    Raises:
        FilterError: an operator has no operand on one side.
    """
    if not any(token.text in ("*", "~") for token in tokens if token.kind == "operator"):
        return source
    pieces, _ = _fold(tokens, 0, None)
    return _guard(pieces)


def _fold(tokens: Sequence[Token], at: int, closer: str | None) -> tuple[list[_Piece], int]:
    """The pieces up to ``closer``, and the index behind it."""
    pieces: list[_Piece] = []
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind != "operator":
            pieces.append(_Piece(token.text, is_word=token.kind == "name"))
        elif token.text == closer:
            return pieces, at
        elif token.text in _CLOSER:
            inner, at = _fold(tokens, at, _CLOSER[token.text])
            pieces.append(_Piece(token.text + _guard(inner) + _CLOSER[token.text]))
        else:
            pieces.append(_Piece(token.text, is_operator=True))
    return pieces, at


def _guard(pieces: Sequence[_Piece]) -> str:
    """Guard the chains of ``~`` and ``*`` between the operators that bind more loosely."""
    result: list[str] = []
    chain: list[_Piece] = []
    for index, piece in enumerate(pieces):
        if _is_loose(pieces, index):
            result += [_guard_chain(chain), piece.text]
            chain = []
        else:
            chain.append(piece)
    result.append(_guard_chain(chain))
    return " ".join(part for part in result if part)


def _is_loose(pieces: Sequence[_Piece], index: int) -> bool:
    piece = pieces[index]
    before = pieces[index - 1] if index else None
    if piece.is_word:
        if before is not None and before.is_operator and before.text in (".", "|"):
            return False
        negates_test = piece.text == "not" and before is not None and before.text == "is"
        is_test = piece.text == "in" and before is not None and before.text == "is"
        return piece.text in _LOOSE_WORDS and not negates_test and not is_test
    if piece.is_operator and piece.text == "-":
        is_sign = before is None or before.is_operator or _is_loose(pieces, index - 1)
        return not is_sign
    return piece.is_operator and piece.text in _LOOSE_OPERATORS


def _guard_chain(chain: Sequence[_Piece]) -> str:
    operands = _split(chain, {"~"})
    if len(operands) == 1:
        return _guard_factors(chain)
    return " ~ ".join(f"(({_guard_factors(operand)})|{TEXT_GUARD})" for operand, _ in operands)


def _guard_factors(chain: Sequence[_Piece]) -> str:
    factors = _split(chain, _FACTOR_OPERATORS)
    if not any(operator == "*" for _, operator in factors):
        return " ".join(piece.text for piece in chain)
    return " ".join(
        f"{operator} (({' '.join(piece.text for piece in factor)})|{NUMBER_GUARD})"
        for factor, operator in factors
    ).strip()


def _split(
    chain: Sequence[_Piece], operators: frozenset[str] | set[str]
) -> list[tuple[list[_Piece], str]]:
    """The operands of a chain, each with the operator that stands before it."""
    operands: list[tuple[list[_Piece], str]] = [([], "")]
    for piece in chain:
        if piece.is_operator and piece.text in operators:
            operands.append(([], piece.text))
        else:
            operands[-1][0].append(piece)
    if len(operands) > 1 and not all(operand for operand, _ in operands):
        raise FilterError(f"`{operands[-1][1]}` lacks a value on one side")
    return operands
