"""Values are checked against what is declared, all faults at once."""

from __future__ import annotations

import copy
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.definitions.fields import FieldDefinition
from swarm.definitions.files import FileValue, is_file_value
from swarm.definitions.values import (
    check_value,
    check_values,
    fields_schema,
    is_secret_reference,
    schema_fault,
)
from swarm.kernel.errors import InputError

FILE = {"$artifact": "sha256:" + "a" * 64, "name": "a.txt", "size": 3, "media_type": "text/plain"}


def field(name: str = "x", type: str = "string", **more: Any) -> FieldDefinition:  # noqa: A002
    document = {"name": name, "type": type, **more}
    if "enum" in document:
        document["enum"] = tuple(document["enum"])
    return FieldDefinition.model_validate(document)


def fault(declared: FieldDefinition, value: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_values((declared,), {declared.name: value}, subject="echo@1.0.0")
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (field(), ""),
        (field(type="integer"), -5),
        (field(type="number"), 5),
        (field(type="number"), 0.5),
        (field(type="boolean"), False),
        (field(type="object"), {"a": None}),
        (field(type="array"), [None]),
        (field(type="file"), FILE),
        (field(type="directory"), {"$artifact": "live:run_1", "name": "repo"}),
        (field(enum=["a", "b"]), "b"),
        (field(type="boolean", enum=[True]), True),
        (field(type="array", schema={"items": {"type": "integer"}, "maxItems": 2}), [1, 2]),
    ],
)
def test_fitting_values_pass_unchanged(declared: FieldDefinition, value: Any) -> None:
    checked = check_values((declared,), {"x": value}, subject="echo@1.0.0")
    assert checked == {"x": value}
    assert type(checked["x"]) is type(value)


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (field(), 5, "input `x` of echo@1.0.0 must be a string, got integer 5"),
        (field(), None, "must be a string, got null"),
        (field(type="integer"), True, "must be an integer, got boolean true"),
        (field(type="integer"), 1.5, "must be an integer, got number 1.5"),
        (field(type="integer"), "5", 'must be an integer, got string "5"'),
        (field(type="number"), True, "must be a number, got boolean true"),
        (field(type="number"), math.nan, "must be a number, got number nan"),
        (field(type="number"), math.inf, "must be a number, got number inf"),
        (field(type="boolean"), 1, "must be a boolean, got integer 1"),
        (field(type="object"), [1], "must be an object, got array of 1 items"),
        (field(type="array"), {"a": 1}, 'must be an array, got object {"a":1}'),
        (
            field(type="file"),
            "/etc/passwd",
            "must be a file (a value with `$artifact`), got string",
        ),
        (field(type="file"), {**FILE, "path": "/"}, "must be a file"),
        (field(enum=["a", "b"]), "c", 'must be one of "a", "b", got string "c"'),
        (field(type="integer", enum=[1]), True, "must be an integer"),
        (field(type="array", enum=[[1, {"a": 0}]]), [True, {"a": 0}], "must be one of"),
        (field(type="array", enum=[[1, {"a": 0}]]), [1, {"a": False}], "must be one of"),
        (field(schema={"minLength": 3}), "ab", "does not fit its schema"),
        (
            field(type="array", schema={"items": {"type": "integer"}}),
            [1, "a"],
            'does not fit its schema: [1] "a" is not of type "integer"',
        ),
        (field(), "y" * 100, ""),
    ],
)
def test_misfits_are_told_plainly(declared: FieldDefinition, value: Any, message: str) -> None:
    if message:
        assert message in fault(declared, value)
    else:
        assert len(fault(field(type="integer"), value)) < 120


def test_all_faults_are_told_at_once() -> None:
    fields = (field("message"), field("count", "integer"), field("flag", "boolean"))
    with pytest.raises(InputError) as caught:
        check_values(fields, {"count": "1", "mesage": "x"}, subject="echo@1.0.0")
    text = str(caught.value)
    assert "input `message` of echo@1.0.0 is missing" in text
    assert "input `count` of echo@1.0.0 must be an integer" in text
    assert "input `flag` of echo@1.0.0 is missing" in text
    assert "input `mesage` of echo@1.0.0 is not declared" in text
    assert "did you mean message?" in text


def test_additional_names_are_kept_where_they_are_allowed() -> None:
    fields = (field("message"), field("count", "integer", default=1))
    given = {"more": {"a": [1]}, "message": "x"}
    checked = check_values(fields, given, subject="a@1.0.0", additional=True)
    assert list(checked.items()) == [("message", "x"), ("count", 1), ("more", {"a": [1]})]
    with pytest.raises(InputError, match="input `message` of"):
        check_values(fields, {"more": 1, "message": 5}, subject="a@1.0.0", additional=True)
    validator = jsonschema_rs.validator_for(fields_schema(fields, additional=True))
    assert validator.is_valid(given)
    assert not jsonschema_rs.validator_for(fields_schema(fields)).is_valid(given)


def test_the_remedy_says_what_is_declared() -> None:
    fields = (field("message"), field("count", "integer", default=1))
    with pytest.raises(InputError) as caught:
        check_values(fields, {}, subject="a@1.0.0")
    assert caught.value.remedy == "declared: message (string), count (integer, optional)"


def test_many_faults_are_cut() -> None:
    with pytest.raises(InputError) as caught:
        check_values((), {f"n{index}": 1 for index in range(1000)}, subject="echo@1.0.0")
    assert "and 980 more" in caught.value.message
    assert caught.value.remedy == "declared: nothing"


def test_outputs_are_called_outputs() -> None:
    with pytest.raises(InputError, match=r"output `x` of echo@1\.0\.0 must be a string"):
        check_values((field(),), {"x": 1}, subject="echo@1.0.0", kind="output")
    with pytest.raises(InputError, match=r"the outputs of echo@1.0.0 must be an object, got null"):
        check_values((field(),), None, subject="echo@1.0.0", kind="output")


def test_defaults_stand_in_and_are_copied() -> None:
    fields = (
        field("a", "array", default=[1]),
        field("b", required=False),
        field("c", "integer", required=False, default=0),
    )
    first = check_values(fields, {"c": None}, subject="s")
    assert first == {"a": [1], "b": None, "c": 0}
    first["a"].append(2)
    assert check_values(fields, {}, subject="s")["a"] == [1]
    assert check_values(fields, first, subject="s") == first


def test_secret_references_pass_only_where_they_may() -> None:
    reference = {"$secret": "KEY"}
    assert is_secret_reference(reference)
    checked = check_values((field(),), {"x": reference}, subject="s", secrets=True)
    assert checked == {"x": reference}
    assert "must be a string" in fault(field(), reference)
    with pytest.raises(InputError):
        check_values((field(),), {"x": {"$secret": "K", "y": 1}}, subject="s", secrets=True)


def test_file_values() -> None:
    value = FileValue.from_json(FILE)
    assert value.as_json() == FILE
    assert not value.is_live
    assert FileValue.from_json({"$artifact": "live:x", "name": "d"}).is_live
    for broken in (
        None,
        "sha256:" + "a" * 64,
        {**FILE, "$artifact": "/etc/passwd"},
        {**FILE, "$artifact": "sha256:" + "A" * 64},
        {**FILE, "name": ""},
        {**FILE, "size": -1},
        {**FILE, "size": True},
        {**FILE, "extra": 1},
        {"name": "a"},
    ):
        assert not is_file_value(broken)
        with pytest.raises(InputError, match="not a file value"):
            FileValue.from_json(broken)


class _SchemaServer(BaseHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"type": "string"}')

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


def test_remote_references_of_schemas_are_never_fetched() -> None:
    with HTTPServer(("127.0.0.1", 0), _SchemaServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            reference = {"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"}
            assert schema_fault(reference) is not None
            assert schema_fault({"items": {"$dynamicRef": reference["$ref"]}}) is not None
        finally:
            server.shutdown()
            thread.join()
    assert _SchemaServer.requests == []
    assert schema_fault({"$ref": "file:///etc/passwd"}) is not None
    assert schema_fault({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}) is None
    assert schema_fault({"type": "strin"}) is not None
    assert schema_fault({"pattern": "("}) is not None


def test_a_pattern_cannot_be_made_to_run_for_ever() -> None:
    declared = field(schema={"pattern": "^(a+)+$"})
    assert check_value(declared, "a" * 5000 + "b") is not None


_scalars = {
    "string": st.text(max_size=5),
    "integer": st.integers(-(2**53), 2**53),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100),
    "boolean": st.booleans(),
    "object": st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=3),
    "array": st.lists(st.integers(0, 5), max_size=3),
    "file": st.just(FILE) | st.just({"$artifact": "live:a", "name": "b"}),
    "directory": st.just({"$artifact": "live:a", "name": "b"}),
}
_any = st.none() | st.one_of(*_scalars.values())


@st.composite
def _declared_and_given(draw: st.DrawFn) -> tuple[tuple[FieldDefinition, ...], dict[str, Any]]:
    fields, values = [], {}
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(sorted(_scalars)))
        more: dict[str, Any] = {"required": draw(st.booleans())}
        if draw(st.booleans()):
            more["enum"] = draw(st.lists(_scalars[kind], min_size=1, max_size=3))
        if draw(st.booleans()):
            more["default"] = draw(
                st.sampled_from(more["enum"]) if "enum" in more else _scalars[kind]
            )
        fields.append(field(f"f{index}", kind, **more))
        choice = draw(st.sampled_from(["absent", "fitting", "any"]))
        if choice != "absent":
            values[f"f{index}"] = draw(_scalars[kind] if choice == "fitting" else _any)
    if draw(st.integers(0, 9)) == 0:
        values["unknown"] = 1
    return tuple(fields), values


def _has_whole_floats(value: Any) -> bool:
    return any(isinstance(each, float) and each.is_integer() for each in value.values())


@given(_declared_and_given())
def test_checking_agrees_with_the_json_schema_and_settles(
    case: tuple[tuple[FieldDefinition, ...], dict[str, Any]],
) -> None:
    fields, values = case
    before = copy.deepcopy(values)
    schema = jsonschema_rs.Draft202012Validator(fields_schema(fields))
    try:
        checked = check_values(fields, values, subject="s")
    except InputError:
        # JSON Schema calls 1.0 an integer; here it is not one.
        assert not schema.is_valid(values) or _has_whole_floats(values)
    else:
        assert schema.is_valid(values)
        assert schema.is_valid(checked)
        assert list(checked) == [each.name for each in fields]
        assert check_values(fields, checked, subject="s") == checked
    assert values == before
