"""Schemas whose references would keep the host busy for ever are refused; useful ones are not."""

from __future__ import annotations

import time
from typing import Any

import jsonschema_rs
import pytest

from swarm.definitions.fields import FieldDefinition
from swarm.definitions.schema_cost import MAX_PARTS, CostlySchema, check_cost
from swarm.definitions.values import check_values, schema_fault
from swarm.kernel.errors import InputError

pytestmark = pytest.mark.alone


def _doubled(levels: int) -> dict[str, Any]:
    """Each definition refers to the next one twice."""
    definitions: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "string"}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def _seconds(schema: dict[str, Any]) -> float:
    validator = jsonschema_rs.Draft202012Validator(schema)
    started = time.perf_counter()
    validator.is_valid("x")
    return time.perf_counter() - started


def test_doubled_references_are_refused() -> None:
    assert _seconds(_doubled(20)) > 20 * _seconds(_doubled(10)), "the attack is empty"
    check_cost(_doubled(10))
    with pytest.raises(CostlySchema, match=str(MAX_PARTS)):
        check_cost(_doubled(60))


_TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "left": {"$ref": "#/$defs/node"},
                "right": {"$ref": "#/$defs/node"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "schema",
    [
        _TREE,
        {"type": "array", "items": {"$ref": "#"}},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"enum": [{"$ref": "nothing"}]}}},
        {"$id": "https://example.com/x", "prefixItems": [{"type": "string"}, True]},
        {"$defs": {"a/b": {"type": "string"}}, "items": {"$ref": "#/$defs/a~1b"}},
    ],
)
def test_useful_schemas_pass(schema: dict[str, Any]) -> None:
    assert schema_fault(schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
        {"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]},
        {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
        {"$ref": "#x", "$defs": {"x": {"$anchor": "x"}}},
        {"items": {"$id": "https://example.com/y", "$ref": "#/items"}},
        {"$ref": "#/$defs/missing"},
    ],
)
def test_others_are_refused(schema: dict[str, Any]) -> None:
    assert schema_fault(schema) is not None


def test_many_faults_are_told_by_the_first() -> None:
    declared = FieldDefinition(
        name="numbers", type="array", schema={"items": {"type": "string"}, "minItems": 1}
    )
    with pytest.raises(InputError, match=r"\[1\] 5 is not of type") as raised:
        check_values([declared], {"numbers": ["x" * 1_000_000] + [5] * 1_000_000}, subject="x")
    assert len(str(raised.value)) < 1000
    with pytest.raises(InputError, match=r"5.*6.*7"):
        check_values([declared], {"numbers": [5, 6, 7]}, subject="x")
