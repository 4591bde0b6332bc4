"""Summarise a text with Claude. Change INSTRUCTIONS and the outputs to make it yours."""

import json
import urllib.error
import urllib.request
from typing import Any

API_URL = "https://api.anthropic.com/v1/messages"
INSTRUCTIONS = "Summarise the user's text in one sentence. Answer with that sentence alone."


def handler(inputs: dict[str, Any], context: Any) -> dict[str, Any]:
    """Called once per invocation, in a fresh sandbox that reaches only the granted hosts."""
    request = urllib.request.Request(
        API_URL,
        data=json.dumps(
            {
                "model": inputs["model"],
                "max_tokens": 300,
                "system": INSTRUCTIONS,
                "messages": [{"role": "user", "content": inputs["text"]}],
            }
        ).encode(),
        headers={
            "x-api-key": context.secret("ANTHROPIC_API_KEY"),
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            message = json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(
            f"HTTP {error.code}: {error.read(500).decode(errors='replace')}"
        ) from None
    return {
        "summary": "".join(part["text"] for part in message["content"] if part["type"] == "text")
    }
