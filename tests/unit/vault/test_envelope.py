"""What is sealed opens with its key and for its name only; any change is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.store.records import SecretIdentity
from swarm.vault.envelope import BrokenSeal, MasterKey, Sealed, rewrap, seal, unseal

KEY = MasterKey.of(b"k" * 32)
OTHER = MasterKey.of(b"o" * 32)
TOKEN = SecretIdentity("TOKEN")

names = st.text(min_size=1, max_size=20)
identities = st.builds(SecretIdentity, names, st.none() | names, names) | st.builds(
    SecretIdentity.of_organization, names, names
)


@given(st.binary(max_size=300), identities)
def test_what_is_sealed_is_opened(value: bytes, identity: SecretIdentity) -> None:
    sealed = seal(KEY, identity, value)
    assert unseal(KEY, identity, sealed) == value
    assert len(value) < 8 or value not in sealed.encrypted_value + sealed.wrapped_key


@given(st.binary(max_size=300), identities)
def test_rewrapping_changes_the_key_and_not_the_value(
    value: bytes, identity: SecretIdentity
) -> None:
    sealed = seal(KEY, identity, value)
    moved = rewrap(KEY, OTHER, identity, sealed)
    assert unseal(OTHER, identity, moved) == value
    assert moved.encrypted_value == sealed.encrypted_value
    with pytest.raises(BrokenSeal):
        unseal(KEY, identity, moved)


@given(st.binary(max_size=100), st.sampled_from(["encrypted_value", "wrapped_key"]), st.data())
def test_a_changed_bit_is_noticed_in_either_ciphertext(
    value: bytes, part: str, data: st.DataObject
) -> None:
    sealed = seal(KEY, TOKEN, value)
    changed = bytearray(getattr(sealed, part))
    position = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[position // 8] ^= 1 << position % 8
    broken: Sealed = replace(sealed, **{part: bytes(changed)})
    with pytest.raises(BrokenSeal):
        unseal(KEY, TOKEN, broken)


@given(st.binary(max_size=100), st.sampled_from(["encrypted_value", "wrapped_key"]), st.data())
def test_a_cut_or_lengthened_ciphertext_is_noticed(
    value: bytes, part: str, data: st.DataObject
) -> None:
    sealed = seal(KEY, TOKEN, value)
    whole = getattr(sealed, part)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for changed in (cut, whole + b"\0"):
        broken: Sealed = replace(sealed, **{part: changed})
        with pytest.raises(BrokenSeal):
            unseal(KEY, TOKEN, broken)


@given(identities, identities)
def test_a_ciphertext_of_another_secret_is_noticed(
    first: SecretIdentity, second: SecretIdentity
) -> None:
    if first == second:
        return
    sealed = seal(KEY, first, b"value")
    with pytest.raises(BrokenSeal):
        unseal(KEY, second, sealed)
    with pytest.raises(BrokenSeal):
        rewrap(KEY, OTHER, second, sealed)


@pytest.mark.parametrize("part", ["encrypted_value", "wrapped_key"])
def test_parts_of_two_values_do_not_mix(part: str) -> None:
    """Also not of two values that one secret had, one after the other."""
    old, new = seal(KEY, TOKEN, b"old"), seal(KEY, TOKEN, b"new")
    mixed: Sealed = replace(new, **{part: getattr(old, part)})
    with pytest.raises(BrokenSeal):
        unseal(KEY, TOKEN, mixed)


def test_a_key_under_another_keys_id_is_noticed() -> None:
    sealed = seal(KEY, TOKEN, b"value")
    with pytest.raises(BrokenSeal):
        unseal(OTHER, TOKEN, sealed)
    with pytest.raises(BrokenSeal):
        unseal(OTHER, TOKEN, replace(sealed, key_id=OTHER.id))
    with pytest.raises(BrokenSeal):
        unseal(MasterKey(KEY.id, OTHER.material), TOKEN, sealed)


def test_the_same_value_is_never_sealed_alike() -> None:
    sealed = [seal(KEY, TOKEN, b"value") for _ in range(100)]
    assert len({one.encrypted_value for one in sealed}) == 100
    assert len({one.wrapped_key for one in sealed}) == 100


def test_a_key_is_not_shown() -> None:
    assert "kkkk" not in repr(KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        MasterKey.of(b"short")
