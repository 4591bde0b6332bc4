"""Granted secrets are readable; handed-out values never come back."""

from __future__ import annotations

import pytest

from swarm.engine.secrets import InvocationSecrets, secret_leaves, with_secrets
from swarm.kernel.errors import NotFoundError, RefusedError
from swarm.vault.masking import MASK

ENVIRONMENT = {"SWARM_SECRET_TOKEN": "s3cr3t-value", "SWARM_SECRET_OTHER": "other"}


async def test_a_secret_without_a_grant_is_refused() -> None:
    with pytest.raises(RefusedError, match="OTHER is not granted"):
        await InvocationSecrets(("TOKEN",), environment=ENVIRONMENT).read("OTHER")


async def test_a_granted_secret_that_is_not_set_says_which_variable_to_set() -> None:
    with pytest.raises(NotFoundError, match="SWARM_SECRET_MISSING"):
        await InvocationSecrets(("MISSING",), environment=ENVIRONMENT).read("MISSING")


async def test_what_was_handed_out_is_masked_everywhere() -> None:
    secrets = InvocationSecrets(("TOKEN",), environment=ENVIRONMENT)
    value = {"s3cr3t-value": ["a s3cr3t-value b", 1, None]}
    assert secrets.mask_value(value) == value
    assert await secrets.read("TOKEN") == "s3cr3t-value"
    assert secrets.mask_value(value) == {MASK: [f"a {MASK} b", 1, None]}


async def test_values_stand_where_the_definition_has_them_and_nowhere_else() -> None:
    given = {"a": ["${secrets.TOKEN}", {"b": "Bearer ${secrets.TOKEN}"}], "c": "${inputs.x}"}
    evaluated = {"a": [{"$secret": "TOKEN"}, {"b": {}}], "c": {"$secret": "TOKEN"}}
    secrets = InvocationSecrets(("TOKEN",), environment=ENVIRONMENT)
    filled = await with_secrets(evaluated, secret_leaves(given), secrets)
    assert filled == {
        "a": ["s3cr3t-value", {"b": "Bearer s3cr3t-value"}],
        "c": {"$secret": "TOKEN"},
    }
    assert evaluated["a"] == [{"$secret": "TOKEN"}, {"b": {}}]
