"""Every attack fails against a sandbox, and works where the walls that stop it are missing."""

from __future__ import annotations

import pytest

from tests.security.attacks.ground import Ground
from tests.security.attacks.table import ATTACKS, Attack

_ids = [attack.name for attack in ATTACKS]
_DEEP = [
    pytest.param(attack, index, id=f"{attack.name}-{'+'.join(sorted(wall))}")
    for attack in ATTACKS
    if len(attack.walls) > 1
    for index, wall in enumerate(attack.walls)
]


@pytest.mark.parametrize("attack", ATTACKS, ids=_ids)
def test_attack(ground: Ground, attack: Attack) -> None:
    verdict = ground.attack(attack)
    assert verdict.gained is None, f"{attack.name} gained: {verdict}"
    assert verdict.refusal in attack.refusals, f"an unexpected end: {verdict}"


@pytest.mark.parametrize("attack", ATTACKS, ids=_ids)
def test_it_works_without_its_walls(ground: Ground, attack: Attack) -> None:
    _skip_if_impossible(ground, attack)
    verdict = ground.attack(attack, attack.without)
    if verdict.gained is None and verdict.refusal in attack.absent:
        pytest.skip(f"this kernel does not have {attack.absent[verdict.refusal]}")
    assert verdict.gained, f"the attack is empty: {verdict}"


@pytest.mark.parametrize(("attack", "index"), _DEEP)
def test_each_wall_is_enough(ground: Ground, attack: Attack, index: int) -> None:
    _skip_if_impossible(ground, attack)
    verdict = ground.attack(attack, attack.without - attack.walls[index])
    assert verdict.gained is None, f"{attack.name} gained: {verdict}"


def test_the_bait_is_untouched(ground: Ground) -> None:
    for attack in ATTACKS:
        ground.attack(attack)
    assert ground.bait_is_untouched()


def _skip_if_impossible(ground: Ground, attack: Attack) -> None:
    if ground.level == "user" and attack.root_only:
        pytest.skip(attack.root_only)
