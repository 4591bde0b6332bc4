"""Stand in for a program: the work is real, deterministic and of a size that one can choose.

The digest is PBKDF2-HMAC-SHA256 (RFC 8018) of the digests received, salted with the task's name, so
that it differs when anything before it differs. The data is SHAKE-256 (FIPS 202) of the digest, so
that whoever receives it can tell whether it is whole.
"""

from __future__ import annotations

import hashlib
from typing import Any


def handler(inputs: dict[str, Any]) -> dict[str, Any]:
    """Check what was received, compute for so many ``rounds``, give ``size`` characters."""
    before = hashlib.sha256()
    for number, item in enumerate(inputs["received"]):
        digest, data = item["digest"], item["data"]
        if data != stretched(digest, len(data)):
            raise ValueError(f"received[{number}] is not what the task before it gave")
        before.update(bytes.fromhex(digest))
    salt = inputs["task"].encode()
    digest = hashlib.pbkdf2_hmac("sha256", before.digest(), salt, inputs["rounds"]).hex()
    return {"digest": digest, "data": stretched(digest, inputs["size"])}


def stretched(digest: str, size: int) -> str:
    """``size`` hexadecimal digits that follow from ``digest``."""
    return hashlib.shake_256(bytes.fromhex(digest)).hexdigest((size + 1) // 2)[:size]
