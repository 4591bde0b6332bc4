"""The same attacks from wherever code of a package runs: commands, Node, and sandboxes of a pool.

That they work where no wall stops them is shown in ``test_attacks``; the walls are the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.security.attacks.ground import Ground
from tests.security.attacks.table import ATTACKS, Attack

_FOR_ALL = [
    attack
    for attack in ATTACKS
    if not (attack.live_input or attack.network)
    # Here it would find other processes of the sandbox itself.
    and attack.name != "processes-signal-host-blindly"
]
# The calls that the kernel refuses are the same whenever they are made.
_EARLY = [attack for attack in _FOR_ALL if attack.category not in ("kernel", "privilege")]
_NATIVE = {
    "read-secret": {"ENOENT"},
    "read-by-link": {"ENOENT"},
    "read-by-root": {"EACCES", "ENOENT"},
    "write-package": {"EROFS", "EACCES"},
    "write-guest": {"EROFS", "EACCES"},
    "write-interpreter": {"EROFS", "EACCES", "ETXTBSY"},
    "signal-host": {"ESRCH"},
    "raise-priority": {"ERR_SYSTEM_ERROR"},
    "become-root": {"EINVAL", "EPERM"},
    "connect-loopback": {"ENETUNREACH", "ECONNREFUSED"},
    "connect-metadata": {"ENETUNREACH"},
    "connect-by-path": {"ENOENT"},
    "send-datagram": {"ENETUNREACH"},
    "look-up": {"ECONNREFUSED", "ENODATA", "ETIMEOUT"},
    "fetch": {"TypeError: fetch failed"},
}


def _answers(
    ground: Ground, place: str, attacks: Sequence[Attack] = _FOR_ALL, calls: int = 1
) -> list[dict[str, Any]]:
    facts = ground.attack_from(place, attacks, calls).facts
    assert "answers" in facts, facts
    for answer in facts["answers"]:
        assert answer["outputs"] is not None, answer
    return [answer["outputs"] for answer in facts["answers"]]


def _check(attack: Attack, verdict: dict[str, Any]) -> None:
    assert verdict["gained"] is None, f"{attack.name} gained: {verdict}"
    assert verdict["refusal"] in attack.refusals, f"{attack.name} ended otherwise: {verdict}"


def test_no_command_gets_further(ground: Ground) -> None:
    (outputs,) = _answers(ground, "command")
    for attack in _FOR_ALL:
        _check(attack, outputs["verdicts"][attack.name])


def test_no_node_program_gets_further(ground: Ground) -> None:
    (outputs,) = _answers(ground, "node")
    for attack in _FOR_ALL:
        _check(attack, outputs["verdicts"][attack.name])
    for name, refusals in _NATIVE.items():
        verdict = outputs["native"][name]
        assert verdict["gained"] is None, (name, verdict)
        assert verdict["refusal"] in refusals, (name, verdict)


def test_nothing_is_gained_by_being_imported_early(ground: Ground) -> None:
    for outputs in _answers(ground, "pool", _EARLY, calls=3):
        for attack in _EARLY:
            _check(attack, outputs["verdicts"][attack.name])
        assert outputs["imported"] == {"fact": None, "inputs": []}
        assert outputs["called"]["fact"] == "inv_attack", "there is nothing to be kept from it"
        assert len(outputs["called"]["inputs"]) == len(_EARLY)
