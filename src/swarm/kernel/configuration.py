"""Reading the settings: from the environment, else from ``config.toml`` in the home.

Each field of :class:`~swarm.kernel.settings.Settings` is read from ``SWARM_<NAME>`` in the
environment, else from the file, else it has its default.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec

from swarm.kernel.errors import InvalidError, nearest_names
from swarm.kernel.settings import (
    MASTER_KEY_VARIABLE,
    SECRET_PREFIX,
    SecretStr,
    Setting,
    Settings,
    known_settings,
)

ENVIRONMENT_PREFIX = "SWARM_"

_LOOKS_LIKE = 0.85
"""From which likeness on a variable is taken for a misspelt one (difflib's ratio)."""

_TRUTHS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    SecretStr: "a text",
    str: "a text",
}
"""What an error calls a type."""


def load_settings(
    environment: Mapping[str, str] | None = None, given: Mapping[str, object] | None = None
) -> Settings:
    """Read the settings of this process.

    Args:
        environment: the variables to read; ``os.environ`` when None.
        given: settings by their names, over those of the environment.

    Raises:
        InvalidError: an unknown or malformed setting; names the variable or the file's key.
    """
    values, origin = _collect(os.environ if environment is None else environment)
    values.update(given or {})
    origin.update(dict.fromkeys(given or {}, "the settings given"))
    return checked_settings(values, origin)


def checked_settings(
    values: Mapping[str, object], origins: Mapping[str, str] | None = None
) -> Settings:
    """The settings of these values, of which each may be a text, as in a variable.

    Args:
        values: what has not its default, by the settings' names.
        origins: where each comes from, for the error.

    Raises:
        InvalidError: an unknown or malformed setting.
    """
    known, origins = known_settings(), origins or {}
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            offered = " or ".join(nearest_names(name, known))
            raise InvalidError(
                f"there is no setting {name}",
                where=origins.get(name),
                remedy=f"did you mean {offered}?" if offered else "`swarm settings` lists them",
            )
        try:
            read[name] = _convert(value, known[name])
        except msgspec.ValidationError:
            raise InvalidError(
                f"the setting {name} is not usable: it must be {_wanted(known[name])}",
                where=origins.get(name),
                remedy=f"unset it to use the default; {known[name].meaning}",
            ) from None
    return Settings(**read)


def setting_origins(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting that has not its default comes from: a variable, or the file's path.

    Raises:
        InvalidError: ``config.toml`` cannot be read.
    """
    return _collect(os.environ if environment is None else environment)[1]


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like a setting's and are none, and the setting's that each looks like."""
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.__struct_fields__}
    known.add(MASTER_KEY_VARIABLE)
    found = {}
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            nearest = difflib.get_close_matches(variable, known, n=1, cutoff=_LOOKS_LIKE)
            if nearest and not variable.startswith(SECRET_PREFIX):
                found[variable] = nearest[0]
    return found


def _collect(environment: Mapping[str, str]) -> tuple[dict[str, object], dict[str, str]]:
    """What is set, unchecked, and the origin of each."""
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    home = Path(environment.get("SWARM_HOME") or "~/.swarm").expanduser().absolute()
    config_file = home / "config.toml"
    for name, value in _read_config(config_file).items():
        values[name], origin[name] = value, str(config_file)
    for name in Settings.__struct_fields__:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            text = environment[variable]
            is_list = name == "allowed_private_networks"
            values[name] = tuple(filter(None, text.split(","))) if is_list else text
            origin[name] = variable
    values["home"] = home
    return values, origin


def _read_config(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(
            f"the configuration cannot be read: {error}",
            where=str(path),
            remedy="mend or remove the file",
        ) from None


def _convert(value: object, setting: Setting) -> Any:
    """The value as the setting's type; a text may stand for a number or a truth.

    Raises:
        msgspec.ValidationError: it is of another type or out of bounds.
    """
    if isinstance(value, str) and setting.kind in (int, float):
        value = value.strip().replace("_", "")
    elif isinstance(value, str) and setting.kind is bool:
        value = _TRUTHS.get(value.strip().lower(), value)
    return msgspec.convert(value, setting.bounded, strict=False, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    """What msgspec does not know itself."""
    if isinstance(value, kind):
        return value
    if kind in (Path, SecretStr) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"no {kind.__name__}")


def _wanted(setting: Setting) -> str:
    """What a setting takes, in words."""
    kinds = [kind for kind in get_args(setting.kind) if kind is not NoneType]
    if get_origin(setting.kind) is Literal:
        return " or ".join(f"`{value}`" for value in kinds)
    if get_origin(setting.kind) is tuple:
        return "a list of texts"
    kind = _KINDS[kinds[0] if kinds else setting.kind]
    limits = setting.bounds
    words = (("at least", limits.ge), ("more than", limits.gt), ("at most", limits.le))
    told = " and ".join(f"{word} {limit:.10g}" for word, limit in words if limit is not None)
    return f"{kind}, {told}" if told else kind
