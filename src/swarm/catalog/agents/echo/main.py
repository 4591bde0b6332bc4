"""Give back the message: the smallest agent that does something one can check."""

from __future__ import annotations

from typing import Any


def handler(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return ``message`` as ``echoed``; the same input always gives the same output."""
    message = inputs["message"]
    return {"echoed": message, "length": len(message)}
