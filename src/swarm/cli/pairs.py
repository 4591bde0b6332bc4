"""``name=value`` texts from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.kernel.errors import InputError


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``{name: value}`` of ``name=value`` texts that were given with ``option``.

    Raises:
        InputError: no ``=``, or a name given twice.
    """
    result: dict[str, str] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise InputError(
                f"`{pair}` is not of the form name=value", remedy=f"write `{option} name=value`"
            )
        if name in result:
            raise InputError(f"`{name}` is given twice with {option}", remedy="give it once")
        result[name] = text
    return result
