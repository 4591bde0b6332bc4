"""What to do about an invocation that failed, by its error code and its words."""

from __future__ import annotations

import re

_RETURN = "let the handler return its outputs, and raise an exception to fail"
_BY_CODE = {
    "timeout": "raise `timeout_seconds` in its agent.yaml (or in the step), or let it do less",
    "oom": "raise `memory_mb` in its agent.yaml, or let it hold less at a time",
    "bad_output": "return what its agent.yaml declares under `outputs`, or declare it there",
    "output_too_large": "hand out large data as a file, or raise SWARM_MAX_OUTPUT_BYTES",
    "exited": _RETURN,
}
_BY_WORDS = (
    (
        re.compile(r"^the command's stdout is not JSON"),
        "print one JSON object on stdout and nothing else; stderr becomes the log",
    ),
    (re.compile(r"^the handler called (sys|process)\.exit"), _RETURN),
    (
        re.compile(r"ModuleNotFoundError|ERR_MODULE_NOT_FOUND|Cannot find (module|package)"),
        "list what it imports under `dependencies` in its agent.yaml (Node: in package.json), or"
        " put it into the package",
    ),
    (
        re.compile(
            r"Name or service not known|Temporary failure in name resolution|ENOTFOUND|EAI_AGAIN"
            r"|Network is unreachable|ENETUNREACH|fetch failed"
        ),
        "a sandbox has no network but what is granted: list the hosts under `permissions: {network:"
        " [...]}` in its agent.yaml",
    ),
)


def failure_remedy(error: str | None, code: str | None) -> str | None:
    """What its author can do about an agent that failed, where the failure tells it."""
    told = next((remedy for words, remedy in _BY_WORDS if words.search(error or "")), None)
    return told or _BY_CODE.get(code or "")
