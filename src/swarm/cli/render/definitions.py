"""Declared inputs, outputs, permissions and registrations, as people read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.cli.render.tables import table
from swarm.cli.terminal import Terminal, clean


def field_table(
    terminal: Terminal,
    title: str,
    fields: Sequence[Mapping[str, Any]],
    *,
    additional: bool = False,
) -> list[str]:
    """Declared inputs or outputs (in normal form) under a title; nothing when there are none.

    Args:
        terminal: where they will be printed.
        title: `INPUT` or `OUTPUT`.
        fields: what is declared.
        additional: whether others are accepted too.
    """
    if additional:
        fields = [*fields, {"name": "...", "type": "any", "required": False}]
    if not fields:
        return []
    is_input = title == "INPUT"
    rows = [
        [
            field["name"],
            field.get("type", "string"),
            _needed(field) if is_input or not field.get("required", True) else "",
            field.get("description", ""),
        ]
        for field in fields
    ]
    return ["", *table(terminal, [title, "TYPE", "", ""], rows)]


def agent_tables(terminal: Terminal, definition: Mapping[str, Any]) -> list[str]:
    """What an agent (in normal form) takes and gives."""
    return [
        line
        for title, kind in (("INPUT", "inputs"), ("OUTPUT", "outputs"))
        for line in field_table(
            terminal,
            title,
            definition.get(kind, ()),
            additional=definition.get(f"additional_{kind}", False),
        )
    ]


def _needed(field: Mapping[str, Any]) -> str:
    if "default" in field and field["default"] is not None:
        return f"default {json.dumps(field['default'], ensure_ascii=False)}"
    if field.get("required", True) and "default" not in field:
        return "required"
    return "optional"


def permission_lines(
    terminal: Terminal,
    requested: Mapping[str, Sequence[str]],
    granted: Mapping[str, Sequence[str]],
) -> list[str]:
    """Each permission that is requested, and whether it is granted."""
    rows = []
    for name, values in requested.items():
        for value in values:
            is_granted = value in granted.get(name, ())
            mark = (
                terminal.style("granted", "green")
                if is_granted
                else terminal.style("not granted", "yellow")
            )
            rows.append(f"  {name}: {clean(value)}  {mark}")
    return rows
