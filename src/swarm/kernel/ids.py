"""Identifiers: a prefix that tells the kind, and a UUIDv7 that sorts by creation time."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """Return ``<prefix>_<32 hexadecimal digits>``, increasing within this process.

    The digits are a version 7 UUID (RFC 9562, section 5.7, method 3 for sub-millisecond order):
    48 bits of Unix milliseconds, 12 bits of the millisecond's fraction, 62 random bits. Should the
    clock stand still or step back, the previous value is counted on, so ids never run backwards.
    """
    global _last
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    stamp = (milliseconds << 12) | (rest * 4096 // 1_000_000)
    with _lock:
        _last = stamp = max(stamp, _last + 1)
    random_bits = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    value = ((stamp >> 12) << 80) | (7 << 76) | ((stamp & 0xFFF) << 64) | (2 << 62) | random_bits
    return f"{prefix}_{value:032x}"


def first_id(prefix: str, moment: datetime) -> str:
    """What every id made at ``moment`` (aware, cut to milliseconds) or later is not below."""
    milliseconds = max((moment - _EPOCH) // timedelta(milliseconds=1), 0)
    return f"{prefix}_{milliseconds << 80:032x}"
