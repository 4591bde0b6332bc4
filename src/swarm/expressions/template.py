"""Templates: JSON values whose texts may hold ``${...}``.

A text that is only one ``${...}`` becomes the expression's value, with its type; other text with
expressions becomes text, in which strings stand as they are and other values as JSON. ``$${``
writes a literal ``${``. Keys are never templates.

A text that holds ``${secrets.NAME}`` becomes a reference, ``{"$secret": ...}``: the value is put in
by the host where it is needed, and is never known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

from swarm.definitions.values import SECRET_KEY as SECRET_KEY
from swarm.expressions import meter
from swarm.expressions.expression import Expression, Reference
from swarm.expressions.filters import as_text
from swarm.expressions.scanner import Embedded, scan
from swarm.kernel.errors import ExpressionError
from swarm.kernel.json import JsonObject, JsonValue

DEFAULT_FUEL = 100_000

Scope = Mapping[str, JsonValue]
SecretText = tuple[str | Reference, ...]
"""Plain text as it stands, and ``("secrets", NAME)`` for the value of each secret in it."""
_Evaluator = Callable[[Scope], JsonValue]


class Template:
    """A compiled template. Immutable; may be shared between threads and evaluated often."""

    __slots__ = ("_evaluate", "_value", "is_constant", "is_whole", "path", "references", "secret")

    references: frozenset[Reference]
    """The paths that it reads, such as ``("steps", "a", "outputs", "x")``."""
    is_constant: bool
    """Whether it holds no expression at all."""
    is_whole: bool
    """Whether it is one text that is only one ``${...}``, so that any type can come of it."""
    path: Reference | None
    """The path, where that expression is only ``a.b.c``."""
    secret: SecretText | None
    """Its pieces, where it is one text that holds secrets."""

    def __init__(
        self,
        value: JsonValue,
        evaluate: _Evaluator | None,
        references: frozenset[Reference],
        whole: Expression | None = None,
        secret: SecretText | None = None,
    ) -> None:
        self._value = value
        self._evaluate = evaluate
        self.references = references
        self.is_constant = evaluate is None
        self.is_whole = whole is not None
        self.path = whole.path if whole is not None else None
        self.secret = secret

    def named(self, root: str) -> frozenset[str]:
        """The names right below ``root`` that it reads, such as the ids of steps."""
        return frozenset(
            reference[1]
            for reference in self.references
            if reference[0] == root and len(reference) > 1
        )

    def evaluate(self, scope: Scope) -> JsonValue:
        """The value in ``scope`` (root name to value), sharing nothing with it.

        Raises:
            ExpressionError: a name is not there (offers the nearest), or an expression fails.
        """
        if self._evaluate is not None:
            meter.start()
            return self._evaluate(scope)
        return deepcopy(self._value) if isinstance(self._value, (dict, list)) else self._value


def compile_template(value: JsonValue, *, where: str, fuel: int = DEFAULT_FUEL) -> Template:
    """Compile a JSON value whose texts may hold ``${...}``.

    Args:
        value: plain JSON.
        where: how errors call the place, such as ``step a, input message``.
        fuel: MiniJinja instructions that one expression may take.

    Raises:
        ExpressionError: an expression is malformed, or uses what is not allowed.
    """
    compiler = _Compiler(where, fuel)
    evaluate = compiler.compile(value, "")
    constant = compiler.constant(value) if evaluate is None else None
    is_text = isinstance(value, str)
    return Template(
        constant,
        evaluate,
        frozenset(compiler.references),
        compiler.whole if is_text else None,
        compiler.secret if is_text else None,
    )


def evaluate_condition(template: Template, scope: Scope) -> bool:
    """Evaluate a ``when``.

    Raises:
        ExpressionError: it fails, or gives something other than true or false.
    """
    result = template.evaluate(scope)
    if isinstance(result, bool):
        return result
    shown = as_text(result)[:60]
    raise ExpressionError(
        f"the condition gave `{shown}`, not true or false",
        remedy=f"write ${{{shown}}}"
        if template.is_constant
        else "compare it, as in ${steps.a.outputs.count > 0}",
    )


def compile_condition(value: str | bool, *, where: str, fuel: int = DEFAULT_FUEL) -> Template:
    """Compile a ``when``: one ``${...}``, or true or false.

    Raises:
        ExpressionError: it is malformed; text without ``${}`` is offered with it.
    """
    template = compile_template(value, where=where, fuel=fuel)
    if isinstance(value, bool):
        return template
    parts = scan(value.strip(), where)
    if len(parts) == 1 and isinstance(parts[0], Embedded):
        return compile_template(value.strip(), where=where, fuel=fuel)
    bare = "".join(part.source if isinstance(part, Embedded) else part for part in parts).strip()
    raise ExpressionError(
        f"the condition `{value}` is not one ${{...}}",
        where=where,
        remedy=f"write ${{{bare}}}",
    )


class _Compiler:
    def __init__(self, where: str, fuel: int) -> None:
        self.where = where
        self.fuel = fuel
        self.references: set[Reference] = set()
        self.whole: Expression | None = None
        self.secret: SecretText | None = None

    def compile(self, value: JsonValue, path: str) -> _Evaluator | None:
        """What evaluates ``value``, or None where it holds no expression."""
        if isinstance(value, str):
            return self._compile_text(value, path) if "${" in value else None
        if isinstance(value, dict):
            compiled = {key: self.compile(item, f"{path}.{key}") for key, item in value.items()}
            if not any(compiled.values()):
                return None
            fields = [
                (key, each or _always(self.constant(value[key]))) for key, each in compiled.items()
            ]
            return lambda scope: {key: evaluate(scope) for key, evaluate in fields}
        if isinstance(value, list):
            items = [self.compile(item, f"{path}[{index}]") for index, item in enumerate(value)]
            if not any(items):
                return None
            evaluators = [
                each or _always(self.constant(item))
                for each, item in zip(items, value, strict=True)
            ]
            return lambda scope: [evaluate(scope) for evaluate in evaluators]
        return None

    def constant(self, value: JsonValue) -> JsonValue:
        """A value without expressions, its escapes resolved; a copy."""
        if isinstance(value, str):
            return value.replace("$${", "${")
        if isinstance(value, dict):
            return {key: self.constant(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.constant(item) for item in value]
        return value

    def _compile_text(self, text: str, path: str) -> _Evaluator | None:
        where = self.where + (f" at {path.lstrip('.')}" if path else "")
        parts = [
            Expression(part, where, self.fuel) if isinstance(part, Embedded) else part
            for part in scan(text, where)
        ]
        expressions = [part for part in parts if isinstance(part, Expression)]
        if not expressions:
            return None
        for expression in expressions:
            self.references |= expression.references
        self.whole = expressions[0] if len(parts) == 1 else None
        self.secret = _secret_text(parts)
        if self.secret is not None:
            alone = self.secret[0] if len(parts) == 1 else text
            reference: JsonObject = {SECRET_KEY: alone if isinstance(alone, str) else alone[1]}
            return lambda _: dict(reference)
        if len(parts) == 1:
            return expressions[0].evaluate
        pieces = [part if isinstance(part, str) else part.evaluate for part in parts]
        return lambda scope: "".join(
            [piece if isinstance(piece, str) else as_text(piece(scope)) for piece in pieces]
        )


def _secret_text(parts: Sequence[str | Expression]) -> SecretText | None:
    """The pieces of a text that holds secrets; None if it holds none.

    Raises:
        ExpressionError: a secret is used in any other way: its value must stay unknown here.
    """
    expressions = [part for part in parts if isinstance(part, Expression)]
    secrets = [one for one in expressions if any(path[0] == "secrets" for path in one.references)]
    if not secrets:
        return None
    for one in secrets:
        if one.path is None or len(one.path) != 2:
            raise one.error(
                "a secret can only be handed on as it is, not computed with",
                "write ${secrets.NAME} alone or within plain text",
            )
    if len(secrets) < len(expressions):
        raise secrets[0].error(
            "a text with a secret can hold no other expressions",
            "write ${secrets.NAME} alone or within plain text, and hand on the rest apart",
        )
    return tuple(part if isinstance(part, str) else (part.path or ()) for part in parts)


def _always(value: JsonValue) -> _Evaluator:
    if isinstance(value, (dict, list)):
        return lambda _: deepcopy(value)
    return lambda _: value
