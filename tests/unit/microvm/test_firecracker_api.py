"""Each call that Firecracker is asked for fits its published API description."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from swarm.sandbox.microvm import firecracker_api as api

DESCRIPTION: Any = json.loads((Path(__file__).parent / "firecracker_api.json").read_text())
TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool}
CALLS = [*api.boot_calls(256), *api.snapshot_calls(), *api.restore_calls()]


def faults(body: Any, name: str) -> list[str]:
    """Where ``body`` does not fit the description of ``name``."""
    description = DESCRIPTION["bodies"][name]
    found = [f"{name}.{field} is missing" for field in description["required"] if field not in body]
    for field, value in body.items():
        kind = description["fields"].get(field)
        if kind is None:
            found.append(f"{name} has no field {field}")
        elif isinstance(kind, list):
            found += [] if value in kind else [f"{name}.{field} may not be {value!r}"]
        elif kind in TYPES:
            fits = type(value) is TYPES[kind]
            found += [] if fits else [f"{name}.{field} is no {kind}"]
        else:
            found += faults(value, kind)
    return found


def described(call: api.ApiCall) -> str:
    """The body's description; KeyError where there is no such call."""
    path = re.sub(r"^/drives/[A-Za-z0-9_]+$", "/drives/{drive_id}", call.path)
    name: str = DESCRIPTION["calls"][f"{call.method} {path}"]
    return name


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_a_call_fits(call: api.ApiCall) -> None:
    assert faults(call.body, described(call)) == []


@pytest.mark.parametrize(
    "body",
    [
        {"vcpu_count": 1},
        {"vcpu_count": "1", "mem_size_mib": 128},
        {"vcpu_count": 1, "mem_size_mib": 128, "memory": 1},
        {"vcpu_count": 1, "mem_size_mib": 128, "huge_pages": "1G"},
    ],
)
def test_the_check_notices_what_does_not_fit(body: dict[str, Any]) -> None:
    assert faults(body, "MachineConfiguration")


def test_the_machine_is_whole_before_it_starts() -> None:
    paths = [call.path for call in api.boot_calls(256)]
    assert paths[-1] == "/actions"
    assert [path for path in paths if path.startswith("/drives/")] == [
        "/drives/root",
        "/drives/agent",
        "/drives/package",
        "/drives/inputs",
    ]
