"""Settings: where they come from, what they take, and what is said of those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from swarm.kernel.configuration import checked_settings, load_settings
from swarm.kernel.errors import InvalidError
from swarm.kernel.settings import SecretStr, Settings, known_settings

PASSWORD = "hunter2"
URL = f"postgresql://me:{PASSWORD}@host/name"


def test_settings_come_from_the_environment_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("max_steps = 7\nretention_days = 1.5\n")
    settings = load_settings({"SWARM_HOME": str(tmp_path), "SWARM_MAX_STEPS": "9"})
    assert (settings.max_steps, settings.retention_days) == (9, 1.5)
    assert settings.home == tmp_path
    settings = load_settings({"SWARM_HOME": str(tmp_path)}, {"max_steps": 8})
    assert (settings.max_steps, settings.retention_days) == (8, 1.5)


def test_every_setting_says_what_it_is_and_its_default_fits() -> None:
    for name, setting in known_settings().items():
        assert setting.meaning.endswith((".", ")"))
        assert getattr(checked_settings({name: setting.default}), name) == setting.default
    assert checked_settings({}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_steps", " 10_000 ", 10_000),
        ("max_steps", "7.0", 7),
        ("retention_days", "0.5", 0.5),
        ("retention_days", "90", 90.0),
        ("idle_seconds", "inf", float("inf")),
        ("require_cgroup", "true", True),
        ("require_cgroup", "Yes", True),
        ("require_cgroup", "off", False),
        ("require_cgroup", "0", False),
        ("durability", "normal", "normal"),
        ("health_socket", "null", Path("null")),
        ("artifact_url", "null", "null"),
        ("database_url", URL, SecretStr(URL)),
        ("allowed_private_networks", "10.0.0.0/8,192.168.1.0/24", ("10.0.0.0/8", "192.168.1.0/24")),
        ("allowed_private_networks", "", ()),
    ],
)
def test_a_variable_becomes_a_value_of_its_type(
    tmp_path: Path, name: str, text: str, value: object
) -> None:
    settings = load_settings({"SWARM_HOME": str(tmp_path), f"SWARM_{name.upper()}": text})
    found = getattr(settings, name)
    assert (found, type(found)) == (value, type(value))
    given = checked_settings({name: value})
    assert getattr(given, name) == value


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("max_steps", "many", "a whole number, at least 1"),
        ("max_steps", "0", "a whole number, at least 1"),
        ("max_steps", True, "a whole number, at least 1"),
        ("max_steps", 1.5, "a whole number, at least 1"),
        ("database_writers", "17", "a whole number, at least 1 and at most 16"),
        ("secret_rotation_batch", "10001", "a whole number, at least 1 and at most 10000"),
        ("database_timeout_seconds", "0", "a number, more than 0"),
        ("idle_seconds", "nan", "a number, at least 0"),
        ("durability", "off", "`full` or `normal`"),
        ("require_cgroup", "maybe", "true or false"),
        ("health_socket", 7, "a path"),
        ("artifact_url", 7, "a text"),
        ("database_url", 7, "a text"),
        ("allowed_private_networks", [7], "a list of texts"),
        ("allowed_private_networks", 7, "a list of texts"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(
    tmp_path: Path, name: str, value: object, wanted: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        load_settings({"SWARM_HOME": str(tmp_path)}, {name: value})
    assert caught.value.message == f"the setting {name} is not usable: it must be {wanted}"
    assert caught.value.where == "the settings given"
    if isinstance(value, str):
        variable = f"SWARM_{name.upper()}"
        with pytest.raises(InvalidError) as caught:
            load_settings({"SWARM_HOME": str(tmp_path), variable: value})
        assert caught.value.where == variable
    meaning = known_settings()[name].meaning
    assert caught.value.remedy == f"unset it to use the default; {meaning}"


def test_a_key_of_the_file_that_does_not_fit_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("max_steps = []\n")
    with pytest.raises(InvalidError, match="a whole number") as caught:
        load_settings({"SWARM_HOME": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "config.toml")


def test_an_unknown_key_in_the_file_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("max_step = 7\n")
    with pytest.raises(InvalidError, match=r"no setting max_step\n.*max_steps") as caught:
        load_settings({"SWARM_HOME": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("zzz = 7\n")
    with pytest.raises(InvalidError, match="`swarm settings` lists them"):
        load_settings({"SWARM_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["max_steps = ", "\0"])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(InvalidError, match="the configuration cannot be read") as caught:
        load_settings({"SWARM_HOME": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "config.toml")


def test_secrets_are_shown_to_nobody_who_does_not_ask() -> None:
    settings = checked_settings({"database_url": URL, "artifact_secret_access_key": PASSWORD})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == URL
    shown = [f"{settings} {settings!r}", f"{settings.database_url} {settings.database_url!r}"]
    shown.append(json.dumps(msgspec.to_builtins(settings, enc_hook=str)))
    assert not any(PASSWORD in text for text in shown)
    with pytest.raises(TypeError):
        msgspec.json.encode(settings.database_url)
    assert settings.database_url == SecretStr(URL) != SecretStr(PASSWORD)
    assert hash(settings.database_url) == hash(SecretStr(URL))
    with pytest.raises(InvalidError) as caught:
        checked_settings({"database_url": [URL]})
    assert PASSWORD not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Settings().max_steps = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        msgspec.structs.replace(Settings(), max_step=1)
