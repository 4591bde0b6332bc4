"""``swarm`` with a bug: what is sent to a sandbox stands in an exception that nobody expects."""

from __future__ import annotations

import sys
from typing import Any

from swarm.cli.main import main
from swarm.engine import invocations
from swarm.kernel.json import JsonObject

_with_secrets = invocations.with_secrets


async def broken(*arguments: Any) -> JsonObject:
    raise RuntimeError(f"not expected: {await _with_secrets(*arguments)}")


if __name__ == "__main__":
    setattr(invocations, "with_secrets", broken)  # noqa: B010
    sys.exit(main())
