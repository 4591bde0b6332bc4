"""YAML is read strictly, and every value's place is known."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.loading import parse_agent, parse_workflow
from swarm.definitions.source import MAX_SOURCE_BYTES, Source, read_yaml
from swarm.kernel.errors import DefinitionError


def refused(text: str) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        read_yaml(text, "file.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("~", None),
        ("null", None),
        ("''", ""),
        ("12", 12),
        ("-3", -3),
        ("012", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1.0", 1.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.0.0", "1.0.0"),
        ("'1.0'", "1.0"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("18446744073709551615", 18446744073709551615),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    data = read_yaml(text, "f").data
    assert data == value
    assert type(data) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("a: 1\nb: 2\na: 3", 3, "the key `a` appears twice in one mapping (first on line 1)"),
        ("a: &x 1", 1, "the anchor &x is refused"),
        ("a: *x", 1, "alias *x is refused"),
        ("a:\n  !!binary aGk=", 2, "the tag !!binary is refused"),
        ("!!python/object/apply:os.system [ls]", 1, "the tag !!python/object/apply:os.system"),
        ("a: 1\n1: b", 2, "the key 1 is not text"),
        ("true: b", 1, "the key true is not text"),
        ("? [a]\n: b", 1, "a key must be text"),
        ("a: .nan", 1, "not a number that JSON knows"),
        ("a: -.inf", 1, "not a number that JSON knows"),
        ("a: 1e999", 1, "too large"),
        ("a: 18446744073709551616", 1, "does not fit into 64 bits"),
        ("a: " + "9" * 5000, 1, "does not fit into 64 bits"),
        ("a: b\n--- \nc: d", 2, "a second document"),
        ("a:\n\t- b", 2, "a tab cannot indent"),
        ("a: [b", 1, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("a: b\nc: \x07", 2, "a character that YAML does not allow"),
        ('a: "\\ud800"', 1, "not valid YAML"),
        ("[" * 60, 1, "more than 50 levels"),
        ("{a: " * 60, 1, "more than 50 levels"),
    ],
)
def test_what_is_refused_has_its_line(text: str, line: int, message: str) -> None:
    problem = refused(text).problems[0]
    assert message in problem.message
    assert problem.file == "file.yaml"
    assert problem.line in (line, line + 1) if "not valid" in message else problem.line == line
    assert problem.remedy


def test_all_breaches_are_told_at_once() -> None:
    error = refused("a: &x 1\nb: *x\na: 2\nc: .nan\n")
    assert [problem.line for problem in error.problems] == [1, 2, 3, 4]


def test_a_bomb_of_aliases_costs_nothing() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    assert len(refused("a0: &a0 [x]\n" + levels).problems) <= 101


def test_a_large_file_is_refused_unread() -> None:
    (problem,) = refused("x" * (MAX_SOURCE_BYTES + 1)).problems
    assert "larger than 1024 KiB" in problem.message
    assert "larger than" in refused("é" * MAX_SOURCE_BYTES).problems[0].message
    assert read_yaml("é", "f", 2).data == "é"
    with pytest.raises(DefinitionError, match="larger than"):
        read_yaml("éa", "f", 2)


def test_positions_lead_to_the_nearest_value() -> None:
    source = read_yaml("a: 1\nsteps:\n  - id: x\n    inputs:\n      text: >\n        long\n", "f")
    assert source.position(("a",)) == (1, 1)
    assert source.position(("steps", 0)) == (3, 5)
    assert source.position(("steps", 0, "inputs", "text")) == (5, 7)
    assert source.position(("steps", 0, "inputs", "absent", "deep")) == (4, 5)
    assert source.position(("absent",)) == (1, 1)
    assert Source(None, "f").position(("x", 1)) == (1, 1)
    problem = source.problem(("a",), "bad", "mend")
    assert problem.where == "f:1:1"


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


class _Quoting(yaml.SafeDumper):
    """Writes text always in quotes, since YAML 1.1 and 1.2 differ about bare words."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(_plain)
def test_what_is_written_is_read_back(value: object) -> None:
    text = yaml.dump(value, Dumper=_Quoting, allow_unicode=True)
    assert read_yaml(text, "f").data == value


_WORDS = (
    "name: |version|: |- |  |\n|\n  |steps|inputs|runtime|entry|${a.b}|'|\"|[|]|{|}|, |true|1.0|"
    "1.0.0|#|&a|*a|!!str |?|\t|é|null|~|schema: |type: |default: |enum: |x"
)
_word = st.sampled_from(_WORDS.split("|"))


@given(st.lists(_word, max_size=40).map("".join) | st.text(max_size=200))
def test_any_text_is_read_or_refused_as_a_definition(text: str) -> None:
    for parse in (parse_agent, parse_workflow):
        try:
            parse(text, "f")
        except DefinitionError as error:
            assert all(problem.file == "f" for problem in error.problems)
            assert all("Input should" not in problem.message for problem in error.problems)
