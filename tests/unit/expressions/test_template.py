"""Templates: what they find, what they give, and every trap of the language below."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.expressions.scanner import Embedded, escape, scan
from swarm.expressions.template import (
    Template,
    compile_condition,
    compile_template,
    evaluate_condition,
)
from swarm.kernel.errors import ExpressionError

SCOPE: dict[str, Any] = {
    "inputs": {
        "text": "some text",
        "count": 5,
        "ratio": 1.0,
        "flag": True,
        "nothing": None,
        "list": [3, 1, 2],
        "nested": {"rows": [{"name": "a", "size": 2}, {"name": "b", "size": None}]},
        "in": 7,
    },
    "steps": {"first": {"outputs": {"total": 12}, "error": None}},
    "variables": {},
}


def compiled(value: Any) -> Template:
    return compile_template(value, where="step x")


def evaluate(value: Any) -> Any:
    return compiled(value).evaluate(SCOPE)


def failure(value: Any) -> str:
    with pytest.raises(ExpressionError) as caught:
        evaluate(value)
    assert caught.value.where is not None
    assert caught.value.where.startswith("step x")
    return str(caught.value)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$", "$"),
        ("a $ b {c}", "a $ b {c}"),
        ("$${x}", "${x}"),
        ("$$${inputs.count}", "$${inputs.count}"),
        ("${inputs.count}", 5),
        (" ${inputs.count}", " 5"),
        ("${inputs.ratio}", 1.0),
        ("${inputs.nested}", SCOPE["inputs"]["nested"]),
        ("${inputs.nothing}", None),
        ("${ inputs . count }", 5),
        ("${inputs.count}${inputs.count}", "55"),
        ("n=${inputs.nothing} l=${inputs.list} t=${inputs.text}", "n=null l=[3,1,2] t=some text"),
        ("${'}'}", "}"),
        ("${\"a}b\" ~ '{'}", "a}b{"),
        ("${'it\\'s }'}", "it's }"),
        ("${{'a': {'b': 1}}}", {"a": {"b": 1}}),
        ("{{ inputs.count }} {% if %} {# #}", "{{ inputs.count }} {% if %} {# #}"),
        ("${'{%' ~ '{{'}", "{%{{"),
        ("${inputs.count > 3 and not inputs.nothing}", True),
        ("${'many' if inputs.count > 3 else 'few'}", "many"),
        ("${inputs.list|sort|first}", 1),
        ("${inputs.list[0] + inputs.list[-1]}", 5),
        ("${inputs.nested.rows|map(attribute='size')|list}", [2, None]),
        (
            "${inputs.nested.rows|sort(attribute='name', reverse=true)|map(attribute='name')|join}",
            "ba",
        ),
        ("${inputs.nested.rows[0]}", {"name": "a", "size": 2}),
        ("${[inputs.nested, inputs.nothing]}", [SCOPE["inputs"]["nested"], None]),
        ("${inputs.nested == {'rows': inputs.nested.rows}}", True),
        ("${inputs.list == [3, 1, 2]}", True),
        ("${'text' in inputs.text}", True),
        ("${'<b>'|upper}", "<B>"),
        ("${inputs.nested|tojson}", json.dumps(SCOPE["inputs"]["nested"], separators=(",", ":"))),
        ("${'a b'|urlencode}", "a%20b"),
        ("${'a,b'|split(',')}", ["a", "b"]),
        ("${inputs.count * 2 + 1}", 11),
        ("${inputs.count - 1 * 2}", 3),
        ("${inputs.in - 1 * 2}", 5),
        ("${2 * 1e-1 * -inputs.count}", -1),
        ("${'n' ~ inputs.count * 2 ~ '-' ~ inputs.list}", "n10-[3,1,2]"),
        ("${2 * 3 ** 2 * -1 ** 2}", 18),
        ("${'s' ~ 't' in ['st']}", True),
        ("${inputs.count * 2 not in [10]}", False),
        ("${(inputs.count * 2) is divisibleby(5)}", True),
        ("${inputs.missing is defined}", False),
        ("${inputs.text is not defined}", False),
        ("${inputs.missing|default('x')}", "x"),
        ("${(inputs.missing|default({})).deep|default(1)}", 1),
        ("${inputs.items is defined}", False),
        ("${inputs.items|default(4)}", 4),
        ("${inputs.keys|default(4)}", 4),
        ("${inputs.nested|items}", [["rows", SCOPE["inputs"]["nested"]["rows"]]]),
        ("${inputs.nested|list}", ["rows"]),
        ("${inputs.nested is mapping and inputs.list is sequence}", True),
    ],
)
def test_gives(template: str, value: Any) -> None:
    result = evaluate(template)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("${inputs.txet}", "did you mean text?"),
        ("${inputs.nested.row}", "there is no `row` in `inputs.nested`"),
        ("${inputs.nothing.deep}", "`inputs.nothing` is null and has no `deep`"),
        ("${inputs.count.deep}", "`inputs.count` is no object and has no `deep`"),
        ("${input.text}", "did you mean inputs?"),
        ("${[inputs.txet]}", "did you mean text?"),
        ("${{'a': [inputs.nothing, inputs.txet]}}", "did you mean text?"),
        ("${inputs.txet + 1}", "did you mean text?"),
        ("${inputs.txet == 1}", "did you mean text?"),
        ("${inputs.txet|upper}", "did you mean text?"),
        ("${inputs.txet ~ 'x'}", "did you mean text?"),
        ("${not inputs.txet}", "did you mean text?"),
        ("a ${inputs.txet} b", "did you mean text?"),
        ("${inputs.list[7]}", "a value in it is not there"),
        ("${inputs.nested.rows|map(attribute='x')|list}", "a value in it is not there"),
        ("${[]|first}", "a value in it is not there"),
        ("${inputs.keys}", "there is no `keys`"),
        ("${inputs.list.append}", "`inputs.list` is no object"),
        ("${1 / 0}", "unable to calculate"),
        ("${1e308 * 10}", "which JSON cannot carry"),
        ("${2 ** 100}", "64 bits"),
        ("${{1: 2}}", "keys must be text"),
        ("${inputs.list * 2}", "`*` takes numbers"),
        ("${'x' * 100000000}", "`*` takes numbers"),
        ("${true and 100000000 * inputs.text}", "`*` takes numbers"),
        ("${inputs.nothing ~ 'x'}", "`~` was given null"),
        ("${inputs.list|upper}", "`upper` takes text, but was given an array"),
        ("${inputs.text|join(1)}", "`join` takes text"),
    ],
)
def test_fails_when_evaluated(template: str, told: str) -> None:
    compiled(template)
    assert told in failure(template)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("a ${", "(character 3) is never closed"),
        ("${inputs.text", "is never closed"),
        ("${(inputs.text}", "closes nothing"),
        ("${inputs.text)}", "closes nothing"),
        ("${'abc}", "the string at character 3"),
        ("${}", "is empty"),
        ("${ }", "is empty"),
        ("${inputs ? 1}", "`?` at character 10 has no meaning"),
        ("${inputs.text inputs}", "unexpected input after expression"),
        ("${1 +}", "unexpected end of input"),
        ("${1 *}", "`*` lacks a value"),
        ("${~ 'a'}", "`~` lacks a value"),
        ("${'a' ~ ~ 'b'}", "`~` lacks a value"),
        ("${('a' ~ )}", "`~` lacks a value"),
        ("${2 * * 3}", "`*` lacks a value"),
        ("${2 * not 3}", "lacks a value"),
        ("${2 3 * 4}", "unexpected"),
        ("${1" + " + 1" * 60 + "}", "more than 50 of + and ~"),
        ("${inputs.text|uper}", "did you mean upper"),
        ("${inputs.text is strng}", "did you mean string"),
        ("${inputs.list.pop()}", "there are no methods"),
        ("${inputs.text.upper()}", "value|upper"),
        ("${inputs.nested.update({'a': 1})}", "there are no methods"),
        ("${(inputs.list)(1)}", "cannot be called"),
        ("${inputs.list[0](1)}", "cannot be called"),
        ("${range(1000000000)}", "there are no functions"),
        ("${debug()}", "there are no functions"),
        ("${namespace(a=1)}", "there are no functions"),
        ("${'%99999999d'|format(1)}", "there is no filter `format`"),
        ("${[1]|batch(999999999, 0)}", "there is no filter `batch`"),
        ("${inputs|attr('keys')}", "there is no filter `attr`"),
        ("${inputs.text|safe}", "there is no filter `safe`"),
        ("${inputs.list|map('default', inputs.text)}", "no filter for `map` `default`"),
        ("${inputs.list|map('map', 'default', 1)}", "no filter for `map` `map`"),
        ("${inputs.list|map('chain', inputs.list)}", "no filter for `map` `chain`"),
        ("${inputs.list|map('def' ~ 'ault', 1)}", "`map` needs a plain name"),
        ("${inputs.list|map(inputs.text)}", "`map` needs the name of a filter"),
        ("${inputs.list|map}", "`map` needs the name of a filter"),
        ("${inputs.list|map(attribute='x', default=inputs.text)}", "takes no `default`"),
        ("${inputs.list|groupby('x', default=(inputs.text))}", "takes no `default`"),
        ("${inputs.count is divisibleby 5 * 2}", "write is divisibleby(...)"),
        ("${steps}", "write steps.<step>.outputs.<name>"),
        ("${steps['first'].outputs.total}", "write steps.first"),
        ("${steps[inputs.text].outputs.total}", "write steps.<step>"),
        ("${steps|length}", "named with a dot"),
        ("${[steps]}", "named with a dot"),
        ("${inputs.text} ${secrets.KEY}", "can hold no other expressions"),
        ("token ${secrets.KEY|upper}", "write ${secrets.NAME} alone"),
        ("${secrets.KEY|upper}", "write ${secrets.NAME} alone"),
        ("${[secrets.KEY]}", "write ${secrets.NAME} alone"),
        ("${secrets}", "write ${secrets.NAME} alone"),
        ("${" + "a" * 3000 + "}", "longer than 2000 characters"),
        ("${" + "(" * 40 + "1" + ")" * 40 + "}", "nests more than"),
        ({"deep": ["fine", {"er": "${"}]}, "deep[1].er"),
    ],
)
def test_is_refused_when_compiled(template: Any, told: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(template)
    assert told in str(caught.value)
    assert caught.value.remedy


def test_no_expression_can_change_what_it_reads() -> None:
    before = copy.deepcopy(SCOPE)
    result = evaluate({"all": "${inputs}", "part": "${[inputs.nested]}", "fix": {"a": [1]}})
    result["all"]["list"].append(9)
    result["part"][0]["rows"].clear()
    result["fix"]["a"].clear()
    assert before == SCOPE
    template = compiled({"fix": {"a": [1]}, "count": "${inputs.count}"})
    template.evaluate(SCOPE)["fix"]["a"].append(2)
    assert template.evaluate(SCOPE) == {"fix": {"a": [1]}, "count": 5}


def test_a_constant_is_known_as_one_and_copied() -> None:
    template = compiled({"a": ["$${x}", 1]})
    assert template.is_constant
    assert template.references == frozenset()
    first = template.evaluate({})
    first["a"].clear()
    assert template.evaluate({}) == {"a": ["${x}", 1]}


def test_references_are_those_that_are_read() -> None:
    template = compiled(
        {
            "a": "${steps.first.outputs.total + steps.second.outputs.rows[0].size}",
            "b": ["x ${inputs.text|default(variables.fallback)}", "${'steps.no'}"],
            "c": "${secrets.KEY}",
        }
    )
    assert template.references == {
        ("steps", "first", "outputs", "total"),
        ("steps", "second", "outputs", "rows"),
        ("inputs", "text"),
        ("variables", "fallback"),
        ("secrets", "KEY"),
    }


def test_a_secret_stays_a_reference() -> None:
    assert evaluate({"key": "${secrets.KEY}"}) == {"key": {"$secret": "KEY"}}
    assert not compiled("${secrets.KEY}").is_constant
    assert compiled("${secrets.KEY}").secret == (("secrets", "KEY"),)
    assert compiled({"key": "${secrets.KEY}"}).secret is None


def test_a_secret_in_plain_text_is_a_reference_too() -> None:
    text = "$${a} ${secrets.USER}:${ secrets.KEY }!"
    assert evaluate(text) == {"$secret": text}
    pieces = ("${a} ", ("secrets", "USER"), ":", ("secrets", "KEY"), "!")
    assert compiled(text).secret == pieces
    assert compiled(text).references == {("secrets", "USER"), ("secrets", "KEY")}


def test_fuel_ends_what_takes_too_long() -> None:
    template = compile_template(
        "${" + " or ".join(["inputs.nothing"] * 100) + "}", where="x", fuel=50
    )
    with pytest.raises(ExpressionError, match="takes too long"):
        template.evaluate(SCOPE)


def test_text_cannot_grow_beyond_its_limit() -> None:
    scope = {"inputs": {"text": "x" * 9000, "many": ["y"] * 9000}}
    for expression in ("inputs.text|replace('x', inputs.text)", "inputs.many|join(inputs.text)"):
        with pytest.raises(ExpressionError, match="would be larger than"):
            compiled("${" + expression + "}").evaluate(scope)


def test_what_results_hold_is_limited() -> None:
    scope = {"inputs": {"text": "x" * 2**20, "rows": [{"a": 1}] * 2**16}}
    for value in (
        ["${inputs.text}"] * 64,
        "${inputs.text}" * 64,
        ["${inputs.rows}"] * 512,
        "${inputs.rows|map('replace', 'x', inputs.text)|list}",
        "${inputs.rows|map('string')|map('replace', '1', inputs.text)|list}",
    ):
        with pytest.raises(ExpressionError, match=r"larger than|takes text"):
            compiled(value).evaluate(scope)
    assert compiled(["${inputs.text}"]).evaluate(scope) == [scope["inputs"]["text"]]


def test_quoting_quoted_text_stays_within_limits() -> None:
    expression = "inputs.text"
    for _ in range(30):
        expression = f"[{expression}]|string"
    with pytest.raises(ExpressionError, match="would be larger than"):
        compiled("${" + expression + "}").evaluate({"inputs": {"text": '"\\'}})


def test_conditions() -> None:
    assert evaluate_condition(compile_condition("${inputs.count > 3}", where="w"), SCOPE)
    assert not evaluate_condition(compile_condition(False, where="w"), SCOPE)
    with pytest.raises(ExpressionError, match=r"write \$\{inputs.count > 3\}"):
        compile_condition("inputs.count > 3", where="w")
    with pytest.raises(ExpressionError, match=r"write \$\{inputs.a == inputs.b\}"):
        compile_condition("${inputs.a} == ${inputs.b}", where="w")
    with pytest.raises(ExpressionError, match="gave `5`, not true or false"):
        evaluate_condition(compiled("${inputs.count}"), SCOPE)
    with pytest.raises(ExpressionError, match=r"write \$\{inputs.flag\}"):
        evaluate_condition(compiled("inputs.flag"), SCOPE)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _without_openings(value: Any) -> bool:
    return "${" not in json.dumps(value)


@given(_json.filter(_without_openings))
def test_json_without_expressions_is_itself(value: Any) -> None:
    template = compiled(value)
    assert template.is_constant
    assert template.evaluate({}) == value


@given(_json)
def test_a_path_gives_the_value_itself(value: Any) -> None:
    scope = {"inputs": {"value": value}}
    assert compiled("${inputs.value}").evaluate(scope) == value
    assert compiled("${[inputs.value]}").evaluate(scope) == [value]
    assert compiled("${inputs.missing|default(inputs.value)}").evaluate(scope) == value


@given(st.text(alphabet="ab$${}'\"\\ \n") | st.text())
def test_escaped_text_is_one_literal(text: str) -> None:
    if text.endswith("$") or "$${" in text:
        return
    assert scan(escape(text), "w") == ([text] if text else [])


_names = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: (
        name
        not in {
            "and",
            "or",
            "not",
            "in",
            "is",
            "if",
            "else",
            "true",
            "false",
            "none",
            "loop",
            "self",
            "steps",
            "secrets",
        }
    )
)
_strings = st.text(alphabet="ab}{$' \\\"").map(
    lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
)


@given(st.lists(st.tuples(st.text(alphabet="xy }{", max_size=4), _names, _names, _strings)))
def test_scanning_finds_what_was_put_together(parts: list[tuple[str, str, str, str]]) -> None:
    text, expected = "", set()
    for literal, root, name, string in parts:
        text += literal + "${ {'k': " + string + "} and " + f"{root}.{name}" + " }"
        expected.add((root, name))
    embedded = [part for part in scan(text, "w") if isinstance(part, Embedded)]
    assert len(embedded) == len(parts)
    assert compiled(text).references == expected
