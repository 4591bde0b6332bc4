"""Every word of the language does what the reference says."""

from __future__ import annotations

import minijinja
import pytest

from swarm.expressions.expression import environment
from swarm.expressions.filters import NUMBER_GUARD, OWN_FILTERS, TEXT_GUARD
from swarm.expressions.template import compile_template
from swarm.expressions.vocabulary import FILTERS, FILTERS_TO_MAP, TESTS
from swarm.kernel.errors import ExpressionError


def evaluate(expression: str) -> object:
    return compile_template("${" + expression + "}", where="w").evaluate({"inputs": {}})


@pytest.mark.parametrize("name", FILTERS)
def test_the_example_of_a_filter_works(name: str) -> None:
    example = FILTERS[name].example
    assert f"|{name}" in example
    evaluate(example)


@pytest.mark.parametrize("name", TESTS)
def test_the_example_of_a_test_is_true(name: str) -> None:
    example = TESTS[name].example
    assert f"is {name}" in example
    assert evaluate(example) is (name != "defined")


def test_what_is_made_here_is_described_there() -> None:
    assert set(OWN_FILTERS) - {NUMBER_GUARD, TEXT_GUARD} <= set(FILTERS)
    assert set(FILTERS) >= FILTERS_TO_MAP


@pytest.mark.parametrize(
    "name", ["attr", "batch", "center", "e", "escape", "format", "indent", "pprint", "safe",
             "slice", "tojson(indent=9)", "truncate", "wordwrap", "xmlattr", "random"]
)  # fmt: skip
def test_what_could_grow_or_leak_is_not_there_even_unchecked(name: str) -> None:
    with pytest.raises((minijinja.TemplateError, TypeError)):
        environment(1000).eval_expr(f"'x'|{name}")
    with pytest.raises(ExpressionError):
        evaluate(f"'x'|{name}")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[3, 1]|sort", [1, 3]),
        ("'a-b-c'|split('-', 1)", ["a", "b-c"]),
        ("' a  b '|split", ["a", "b"]),
        ("'xax'|trim('x')", "a"),
        ("[1, none, {'a': true}]|join(';')", '1;null;{"a":true}'),
        ("['a', 'b']|map('upper')|join", "AB"),
        ("['a,b']|map('split', ',')|list", [["a", "b"]]),
        ("'é/ä?'|urlencode", "%C3%A9/%C3%A4%3F"),
        ("{'b': 1, 'a': [2.5]}|tojson", '{"a":[2.5],"b":1}'),
        ("1|string ~ 'x'", "1x"),
    ],
)
def test_filters_give(expression: str, value: object) -> None:
    assert evaluate(expression) == value
