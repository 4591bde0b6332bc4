"""One expression: checked and compiled once, evaluated many times.

An expression that is only a path (``steps.a.outputs.x``) is looked up directly; every other one is
MiniJinja's. MiniJinja 3.0.5 gives None for a name that is not there, also inside arrays and
mappings that the expression makes; that is found out here, and is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import minijinja

from swarm.expressions.filters import OWN_FILTERS
from swarm.expressions.frozen import FrozenArray, FrozenObject, freeze, thaw
from swarm.expressions.guards import guard_operators
from swarm.expressions.meter import FilterError
from swarm.expressions.scanner import Embedded, Token
from swarm.expressions.vocabulary import (
    FILTERS,
    FILTERS_TO_MAP,
    REMOVED_FILTERS,
    REMOVED_GLOBALS,
    REMOVED_TESTS,
    TESTS,
)
from swarm.kernel.errors import ExpressionError, nearest_names
from swarm.kernel.json import JsonValue

Reference = tuple[str, ...]

_CONSTANTS = frozenset(["true", "True", "false", "False", "none", "None"])
_WORDS = _CONSTANTS | {"and", "or", "not", "in", "is", "if", "else"}
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_UNDEFINED = re.compile(r"\bundefined\b")
_PLACE = re.compile(r" \(in <expression>:\d+\)")
_FAILURES = (
    minijinja.TemplateError,
    FilterError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
)
"""All that MiniJinja and the filters raise: what Python raises inside it comes through."""


MAX_JOINTS = 50
"""Each copies the text before it, so the work grows with their square."""

_FUEL_TO_PARSE = 1
"""Ends an evaluation before it begins: only the syntax is checked."""


class Expression:
    """A compiled expression. Immutable; may be shared between threads."""

    __slots__ = ("_environment", "_program", "_roots", "path", "references", "source", "where")

    def __init__(self, embedded: Embedded, where: str, fuel: int) -> None:
        self.source = embedded.source.strip()
        self.where = where
        self._environment = environment(fuel)
        _check_tokens(embedded.tokens, self)
        self.path: Reference | None = _path(embedded.tokens)
        try:
            self._program = guard_operators(self.source, embedded.tokens)
        except FilterError as error:
            raise self.error(str(error), "write a value on both sides of it") from None
        self.references = frozenset([self.path]) if self.path else self._find_references()
        self._roots = frozenset(reference[0] for reference in self.references)
        self._check_steps(embedded.tokens)

    def evaluate(self, scope: Mapping[str, JsonValue]) -> JsonValue:
        """The value, as plain JSON that shares nothing with ``scope``.

        Raises:
            ExpressionError: a name is not there, or the expression fails.
        """
        try:
            if self.path is not None:
                return thaw(self._look_up(self.path, scope), self.source, self.where)
            values = {root: freeze(scope[root]) for root in self._roots if root in scope}
            result = self._environment.eval_expr(self._program, **values)
            if _may_hold_undefined(result):
                self._refuse_undefined(result, values, scope)
            return thaw(result, self.source, self.where)
        except _FAILURES as error:
            raise self._failure(error, scope) from None

    def error(self, message: str, remedy: str | None = None) -> ExpressionError:
        return ExpressionError(f"${{{self.source}}}: {message}", where=self.where, remedy=remedy)

    def _find_references(self) -> frozenset[Reference]:
        """Parse the guarded program: MiniJinja computes constants (``'x' * 99999999``) at once."""
        try:
            environment(_FUEL_TO_PARSE).eval_expr(self._program)
        except minijinja.TemplateError as error:
            if error.kind == "SyntaxError":
                raise self.error(_plain(error), "see the reference of expressions") from None
        template = "{{ " + self._program + " }}"
        names = self._environment.undeclared_variables_in_str(template, nested=True)
        return frozenset(tuple(name.split(".")) for name in names)

    def _check_steps(self, tokens: tuple[Token, ...]) -> None:
        if ("steps",) not in self.references:
            return
        named = re.search(r"steps\s*\[\s*(['\"])([A-Za-z_]\w*)\1\s*\]", self.source)
        form = f"steps.{named[2]}" if named else "steps.<step>.outputs.<name>"
        raise self.error(
            "a step must be named with a dot, so that what depends on it is known",
            f"write {form}",
        )

    def _look_up(self, path: Reference, scope: Mapping[str, JsonValue]) -> JsonValue:
        value: Any = scope
        for index, name in enumerate(path):
            if not isinstance(value, Mapping) or name not in value:
                raise self._missing(path, index, value)
            value = value[name]
        return value

    def _missing(self, path: Reference, index: int, holder: JsonValue) -> ExpressionError:
        name, parent = path[index], ".".join(path[:index])
        if not isinstance(holder, Mapping):
            kind = "null" if holder is None else "no object"
            return self.error(
                f"`{parent}` is {kind} and has no `{name}`",
                f"test it first: `{parent}.{name} if {parent} else ...`"
                if holder is None
                else f"use `{parent}` itself",
            )
        known = ", ".join(sorted(map(str, holder))[:8]) or "nothing"
        nearest = nearest_names(name, map(str, holder))
        remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"there is: {known}"
        return self.error(f"there is no `{name}`" + (f" in `{parent}`" if parent else ""), remedy)

    def _missing_reference(self, scope: Mapping[str, JsonValue]) -> ExpressionError | None:
        """What is wrong with the first name that is not there, if one is not."""
        for reference in sorted(self.references):
            try:
                self._look_up(reference, scope)
            except ExpressionError as error:
                return error
        return None

    def _refuse_undefined(
        self, result: object, values: Mapping[str, Any], scope: Mapping[str, JsonValue]
    ) -> None:
        if result is None:
            is_undefined = self._environment.eval_expr(f"({self._program}) is undefined", **values)
        else:  # MiniJinja writes an undefined value so, and null as None
            shown = self._environment.eval_expr(f"({self._program}) ~ ''", **values)
            is_undefined = bool(_UNDEFINED.search(_QUOTED.sub("", shown)))
        if is_undefined:
            raise self._missing_reference(scope) or self.error(
                "a value in it is not there", "use default(...) where a value may be missing"
            )

    def _failure(self, error: Exception, scope: Mapping[str, JsonValue]) -> ExpressionError:
        if isinstance(error, RecursionError):
            return self.error("the value is nested too deeply", "make it flatter")
        if isinstance(error, minijinja.TemplateError) and error.kind == "OutOfFuel":
            return self.error("it takes too long", "move the work into an agent")
        said = _plain(error)
        suspects_name = isinstance(error, FilterError) or "undefined" in said
        missing = self._missing_reference(scope) if suspects_name else None
        return missing or self.error(said, "see the reference of expressions")


@lru_cache(maxsize=8)
def environment(fuel: int) -> minijinja.Environment:
    """MiniJinja without globals, methods, escaping, source in errors, or filters that grow."""
    environment = minijinja.Environment(
        debug=False,
        fuel=fuel,
        undefined_behavior="strict",
        auto_escape_callback=lambda _: False,
        pycompat=False,
    )
    for name in REMOVED_GLOBALS:
        environment.remove_global(name)
    for name in REMOVED_FILTERS:
        environment.remove_filter(name)
    for name in REMOVED_TESTS:
        environment.remove_test(name)
    for name, function in OWN_FILTERS.items():
        environment.add_filter(name, function)
    return environment


def _path(tokens: tuple[Token, ...]) -> Reference | None:
    """The names of an expression that is only ``a.b.c``, else None."""
    if len(tokens) % 2 == 0 or tokens[0].text in _WORDS or tokens[0].text in ("loop", "self"):
        return None
    for index, token in enumerate(tokens):
        if index % 2 == 0 and token.kind != "name":
            return None
        if index % 2 == 1 and token.text != ".":
            return None
    return tuple(token.text for token in tokens[::2])


def _check_tokens(tokens: tuple[Token, ...], expression: Expression) -> None:
    """Refuse calls, and filters and tests that do not exist, before anything is evaluated."""
    if sum(token.text in ("+", "~") for token in tokens) > MAX_JOINTS:
        raise expression.error(
            f"there are more than {MAX_JOINTS} of + and ~ in it",
            "write text with several ${...} in it, or use join",
        )
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else None
        if token.text == "(" and before is not None:
            _check_call(tokens, index, expression)
        elif token.kind == "name" and before is not None and before.text == "|":
            _check_known(token.text, "filter", FILTERS, expression)
            if token.text in ("map", "groupby"):
                _check_map(tokens, index, expression)
        elif token.kind == "name" and _follows_is(tokens, index) and token.text != "not":
            _check_known(token.text, "test", TESTS, expression)
            _check_test_argument(tokens, index, expression)


def _check_map(tokens: tuple[Token, ...], index: int, expression: Expression) -> None:
    """``map`` names its filter, or an attribute; a ``default=`` would be copied without limit."""
    arguments = [token.text for token in tokens[index + 1 : index + 4]]
    if tokens[index].text == "map" and arguments[1:3] != ["attribute", "="]:
        first = tokens[index + 2] if len(arguments) > 1 else None
        if arguments[:1] != ["("] or first is None or first.kind != "string":
            raise expression.error(
                "`map` needs the name of a filter, or an attribute",
                "write map('upper') or map(attribute='name')",
            )
        if arguments[2:] not in ([","], [")"]):
            raise expression.error("`map` needs a plain name", "write map('upper')")
        _check_known(first.text[1:-1], "filter for `map`", FILTERS_TO_MAP, expression)
    depth = 0
    for token, following in pairwise(tokens[index + 1 :]):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return
        if token.text == "default" and following.text == "=":
            raise expression.error(
                f"`{tokens[index].text}` takes no `default`", "declare the value as required"
            )


def _follows_is(tokens: tuple[Token, ...], index: int) -> bool:
    """Whether the name at ``index`` stands where a test is named."""
    words = [
        token.text if token.kind == "name" else "" for token in tokens[max(0, index - 2) : index]
    ]
    if words and words[-1] == "not":
        words.pop()
    if not words or words[-1] != "is":
        return False
    position = index - 1 if tokens[index - 1].text == "is" else index - 2
    return not (position and tokens[position - 1].text == ".")


def _check_call(tokens: tuple[Token, ...], index: int, expression: Expression) -> None:
    called = tokens[index - 1]
    earlier = tokens[index - 2].text if index >= 2 else ""
    if called.text in (")", "]", "}") or called.kind == "string":
        raise expression.error("a value cannot be called", "use a filter: value|filter")
    if called.kind != "name" or earlier == "|" or _follows_is(tokens, index - 1):
        return
    if earlier == ".":
        remedy = (
            f"use a filter: value|{called.text}"
            if called.text in FILTERS
            else ("use a filter; see the reference of expressions")
        )
        raise expression.error(f"there are no methods, so `.{called.text}()` is refused", remedy)
    if called.text not in _WORDS:
        raise expression.error(
            f"there are no functions, so `{called.text}()` is refused",
            "use filters, or move the work into an agent",
        )


def _check_known(name: str, kind: str, known: Collection[str], expression: Expression) -> None:
    if name in known:
        return
    nearest = nearest_names(name, known)
    remedy = (
        f"did you mean {' or '.join(nearest)}?"
        if nearest
        else (f"there is: {', '.join(sorted(known))}")
    )
    raise expression.error(f"there is no {kind} `{name}`", remedy)


def _check_test_argument(tokens: tuple[Token, ...], index: int, expression: Expression) -> None:
    """``is eq 1``: how far the bare argument reaches is a riddle, so brackets are asked for."""
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    if following is None or following.text == "(":
        return
    if (
        following.kind in ("string", "number")
        or following.text in ("[", "{")
        or (following.kind == "name" and following.text not in _WORDS - _CONSTANTS)
    ):
        name = tokens[index].text
        raise expression.error(
            f"the argument of the test `{name}` needs brackets", f"write is {name}(...)"
        )


def _may_hold_undefined(value: object) -> bool:
    """Whether a None is in what the expression itself made (live data holds nothing undefined)."""
    if value is None:
        return True
    if isinstance(value, (FrozenObject, FrozenArray)):
        return False
    if isinstance(value, dict):
        return any(map(_may_hold_undefined, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_may_hold_undefined, value))


def _plain(error: Exception) -> str:
    """What MiniJinja or a filter says, without its own words for places."""
    text = error.message if isinstance(error, minijinja.TemplateError) else str(error)
    return (
        _PLACE.sub("", str(text)).removeprefix("syntax error: ").removeprefix("invalid operation: ")
    )
