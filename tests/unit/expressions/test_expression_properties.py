"""What holds for every expression: found names are the used ones, and guards change nothing."""

from __future__ import annotations

import copy
from typing import Any

import minijinja
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.expressions.expression import Expression, environment
from swarm.expressions.guards import guard_operators
from swarm.expressions.scanner import Embedded, scan
from swarm.expressions.template import compile_template
from swarm.kernel.errors import ExpressionError

SCOPE: dict[str, Any] = {
    "inputs": {"a": 3, "b": "text", "c": [1, 2, 3], "d": {"e": {"f": None}, "items": 1}},
    "steps": {
        "one": {"outputs": {"x": 1, "y": [{"z": 2}]}, "error": None},
        "two": {"outputs": {"x": "q"}, "error": {"message": "m"}},
    },
    "variables": {"v": True},
}

_paths = st.sampled_from(
    [
        "inputs.a",
        "inputs.b",
        "inputs.c",
        "inputs.d",
        "inputs.d.e.f",
        "inputs.c[0]",
        "inputs.d['e']",
        "inputs.missing",
        "steps.one.outputs.x",
        "steps.one.outputs.y[0].z",
        "steps.two.outputs.x",
        "steps.two.error.message",
        "steps.one.outputs",
        "steps.one['outputs'].x",
        "variables.v",
        "(steps).one.outputs.x",
        "inputs[inputs.b]",
    ]
)
_literals = st.sampled_from(["1", "0", "2.5", "'s'", "'${x} }'", "true", "none", "[]", "{}"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(
        ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "in", "not in", "and", "or"]
    )
    filters = st.sampled_from(
        ["upper", "length", "default(0)", "string", "first", "list", "tojson", "d(inputs.b)"]
    )
    tests = st.sampled_from(["defined", "not none", "string", "divisibleby(2)", "eq(inputs.a)"])
    return st.one_of(
        st.builds("{} {} {}".format, inner, binary, inner),
        st.builds("({})".format, inner),
        st.builds("({})|{}".format, inner, filters),
        st.builds("{}|{}".format, inner, filters),
        st.builds("({}) is {}".format, inner, tests),
        st.builds("{} if {} else {}".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{'k': {}, 'l': {}}}".format, inner, inner),
        st.builds("not {}".format, inner),
        st.builds("-{}".format, inner),
        st.builds("({})[0]".format, inner),
    )


_expressions = st.recursive(_paths | _literals, _combined, max_leaves=8)


def _outcome(text: str, scope: dict[str, Any]) -> Any:
    try:
        return compile_template(text, where="w").evaluate(scope)
    except ExpressionError:
        return ExpressionError


def _pruned(references: frozenset[tuple[str, ...]], scope: dict[str, Any]) -> dict[str, Any]:
    """Only what the references name."""
    result: dict[str, Any] = {}
    for reference in references:
        source, target = scope, result
        for index, name in enumerate(reference):
            if not isinstance(source, dict) or name not in source:
                break
            is_last = index == len(reference) - 1
            if is_last or not isinstance(source[name], dict):
                target[name] = copy.deepcopy(source[name])
                break
            source, target = source[name], target.setdefault(name, {})
    return result


@settings(max_examples=400)
@given(_expressions)
def test_an_expression_uses_only_what_its_references_name(expression: str) -> None:
    text = "${" + expression + "}"
    before = copy.deepcopy(SCOPE)
    try:
        template = compile_template(text, where="w")
    except ExpressionError:
        return
    pruned = _pruned(template.references, SCOPE)
    assert _outcome(text, pruned) == _outcome(text, SCOPE)
    assert before == SCOPE


@given(_expressions, st.text(alphabet="ab ${}", max_size=6))
def test_an_expression_is_found_whole_in_any_text(expression: str, around: str) -> None:
    if "$" in around or "{" in around:
        around = ""
    parts = scan(around + "${" + expression + "}" + around, "w")
    (embedded,) = [part for part in parts if isinstance(part, Embedded)]
    assert embedded.source == expression


_numbers = st.sampled_from(["1", "2", "0.5", "a", "b", "c.in", "-a", "(b)", "c['d']"])


def _arithmetic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["*", "*", "+", "-", "//", "%", "<", "==", "and", "~", "~"])
    return st.one_of(
        st.builds("{} {} {}".format, inner, operators, inner),
        st.builds("{}{}{}".format, inner, st.sampled_from(["*", "-", "+"]), inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("{}|abs".format, inner),
        st.builds("{} if {} else {}".format, inner, inner, inner),
        st.builds("[{}, {}][0]".format, inner, inner),
        st.builds("{} is defined".format, inner),
        st.builds("{} is not none".format, inner),
        st.builds("c[{}:]|length".format, inner),
    )


@settings(max_examples=400)
@given(st.recursive(_numbers, _arithmetic, max_leaves=7))
def test_guards_leave_values_as_they_are(expression: str) -> None:
    scope = {"a": 3, "b": 7, "c": {"in": 5, "d": 2}}
    raw = minijinja.Environment(undefined_behavior="strict")
    try:
        expected = raw.eval_expr(expression, **scope)
    except minijinja.TemplateError:
        return
    if isinstance(expected, str) and not expected.lstrip("-").isdigit():
        return  # booleans and fractions are written as JSON here, and as in Python there
    result = _outcome("${" + expression + "}", scope)
    if result is not ExpressionError:
        assert result == expected


def test_guards_bind_as_the_operators_do() -> None:
    (embedded,) = scan("${a - -b * c.in|abs // 2 ~ 'x' if not d in e else f(g * 2)}", "w")
    assert isinstance(embedded, Embedded)
    program = guard_operators(embedded.source, embedded.tokens)
    assert program == (
        "a - ((((- b)|swarm_number) * ((c . in | abs)|swarm_number) // ((2)|swarm_number))"
        "|swarm_text) ~ (('x')|swarm_text) if not d in e else f (((g)|swarm_number) *"
        " ((2)|swarm_number))"
    )


def test_an_expression_is_safe_between_threads_and_reusable() -> None:
    (embedded,) = scan("${inputs.a * 2}", "w")
    assert isinstance(embedded, Embedded)
    expression = Expression(embedded, "w", 1000)
    assert [expression.evaluate({"inputs": {"a": n}}) for n in range(5)] == [0, 2, 4, 6, 8]


def test_the_language_has_no_functions_or_methods_even_unchecked() -> None:
    language = environment(1000)
    assert not language.globals
    for expression in ("range(3)", "'a'.upper()", "'%d'|format(1)", "[1]|batch(2)", "x|attr('y')"):
        with pytest.raises(minijinja.TemplateError, match=r"unknown|no method"):
            language.eval_expr(expression, x={"y": 1})


def test_no_name_of_python_can_be_reached() -> None:
    for name in (
        "inputs.__class__",
        "inputs['__class__']",
        "inputs._value",
        "inputs.c._value",
        "inputs.c.__len__",
        "inputs.b.__class__",
        "inputs.c.index",
        "inputs.values",
    ):
        with pytest.raises(ExpressionError, match=r"no `|not there|no object"):
            compile_template("${" + name + "}", where="w").evaluate(SCOPE)
        defined = compile_template("${" + name + " is defined}", where="w")
        assert defined.evaluate(SCOPE) is False
