"""What is offered against failures of agents."""

from __future__ import annotations

import pytest

from swarm.engine.remedies import failure_remedy


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("the handler did not finish within 3 seconds", "timeout", "timeout_seconds"),
        ("the handler needed more than its 64 MiB of memory", "oom", "memory_mb"),
        ("output `r` of a@1.0.0 is missing", "bad_output", "`outputs`"),
        ("the output has 10485768 bytes", "output_too_large", "SWARM_MAX_OUTPUT_BYTES"),
        ("the handler ended without an answer", "exited", "return its outputs"),
        ("the handler called sys.exit(7)", "error", "return its outputs"),
        (
            "the package cannot be loaded: ModuleNotFoundError: No module named 'requests'",
            "load",
            "dependencies",
        ),
        ("URLError: <urlopen error [Errno -2] Name or service not known>", "error", "network"),
        ("the command's stdout is not JSON (Expecting value)", "bad_output", "one JSON object"),
        ("TypeError: fetch failed", "error", "network"),
        ("TypeError: fetch failed: getaddrinfo ENOTFOUND example.com", "error", "network"),
    ],
)
def test_the_remedy_fits_the_failure(error: str, code: str, words: str) -> None:
    assert words in (failure_remedy(error, code) or "")


def test_nothing_is_offered_where_nothing_is_known() -> None:
    assert failure_remedy("ValueError: boom", "error") is None
    assert failure_remedy(None, None) is None
