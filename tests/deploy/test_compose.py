"""The Compose file: by its schema, and that it grants what sandboxes need and nothing else."""

from __future__ import annotations

import re
from typing import Any

import yaml

from swarm.kernel.settings import Settings
from swarm.sandbox.linux.remedies import remedy
from tests.deploy.tools import DEPLOY, need, passes

COMPOSE = DEPLOY / "compose.yaml"


def services() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(COMPOSE.read_text())
    found: dict[str, dict[str, Any]] = document["services"]
    return found


def test_it_fits_the_schema_of_the_specification() -> None:
    passes(need("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_the_worker_is_given_the_options_of_the_remedy() -> None:
    given = {
        tuple(re.split("[:=]", option, maxsplit=1))
        for option in services()["worker"]["security_opt"]
    }
    wanted = dict(re.findall(r"--security-opt (\w+)=([\w./]+)", remedy("mount-namespace", 1)))
    assert wanted["seccomp"] == "deploy/seccomp.json"
    assert given == {
        ("no-new-privileges", "true"),
        *({**wanted, "seccomp": "seccomp.json"}).items(),
    }


def test_nothing_has_more_power_than_an_ordinary_user() -> None:
    for name in ("worker", "migrate"):
        service = services()[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "no-new-privileges:true" in service["security_opt"]
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    assert len(services()["migrate"]["security_opt"]) == 1, "it makes no sandboxes"


def test_the_database_is_reached_from_inside_only() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    assert document["networks"]["inside"] == {"internal": True}
    assert services()["database"]["networks"] == ["inside"]
    assert all("ports" not in service for service in services().values())


def test_workers_start_after_the_migrations_and_are_asked_how_they_are() -> None:
    worker = services()["worker"]
    assert worker["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services()["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert worker["healthcheck"]["test"] == ["CMD", "swarm", "health"]


def test_secrets_have_no_default() -> None:
    for variable in re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)(:?.)", COMPOSE.read_text()):
        assert variable[1] == ":?", f"{variable[0]} has a default"


def test_variables_are_settings() -> None:
    known = {f"SWARM_{name.upper()}" for name in Settings.__struct_fields__} | {"SWARM_MASTER_KEY"}
    assert set(services()["worker"]["environment"]) <= known
