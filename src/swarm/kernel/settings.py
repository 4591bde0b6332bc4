"""Settings: every knob, its unit and its default, in one place.

Each field is read from ``SWARM_<NAME>`` in the environment, else from ``config.toml`` in the home,
else its default. The reference in the documentation is generated from this class.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from swarm.kernel.errors import InvalidError, nearest_names

ENVIRONMENT_PREFIX = "SWARM_"
SECRET_PREFIX = "SWARM_SECRET_"
MASTER_KEY_VARIABLE = "SWARM_MASTER_KEY"

_LOOKS_LIKE = 0.85
"""From which likeness on a variable is taken for a misspelt one (difflib's ratio)."""

KIB = 1024
MIB = 1024 * KIB


class Settings(BaseModel):
    """The settings of one Swarm home."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(Path("~/.swarm"), description="Folder that holds everything Swarm keeps.")
    database_listen_url: SecretStr | None = Field(
        None,
        description="The PostgreSQL database of `database_url` past a pooler: notifications need a "
        "connection of their own, which PgBouncer in transaction mode does not give. Never "
        "printed.",
    )
    lease_seconds: float = Field(
        20.0,
        ge=1.0,
        description="On PostgreSQL: how long a process that drives runs may go unheard before "
        "others take its runs over; it renews its lease every quarter of that.",
    )
    drain_seconds: float = Field(
        10.0,
        ge=0,
        description="How long a worker that is told to stop lets its runs go on, before it leaves "
        "them to others.",
    )
    durability: Literal["full", "normal"] = Field(
        "full",
        description="What was committed survives the death of processes and, with `full`, the loss "
        "of power; with `normal` that may lose the last commits, and breaks nothing.",
    )
    database_timeout_seconds: float = Field(
        10.0, gt=0, description="How long a write waits for another process's lock."
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database of many machines, postgresql://user:password@host/name; "
        "without one, the home's own SQLite file is used. Never printed.",
    )
    database_writers: int = Field(
        2, ge=1, le=16, description="Connections of one process that write to PostgreSQL."
    )
    database_readers: int = Field(
        4, ge=1, le=64, description="Connections of one process that read from PostgreSQL."
    )
    database_reconnect_seconds: float = Field(
        30.0,
        ge=0,
        description="How long a PostgreSQL server that went away is waited for, before what waits "
        "for it fails.",
    )
    max_concurrent_runs: int = Field(50, ge=1, description="Runs that one host drives at once.")
    max_concurrent_invocations: int = Field(
        default_factory=lambda: max(2, (os.cpu_count() or 1) * 2),
        ge=1,
        description="Sandboxes that one host runs at once (default: twice the cores).",
    )
    pool_ready_per_package: int = Field(
        2,
        ge=0,
        description="Sandboxes kept ready for one package; 0 builds each when it is needed.",
    )
    pool_ready: int = Field(16, ge=0, description="Sandboxes kept ready by one host, in all.")
    pool_blank: int = Field(
        2,
        ge=0,
        description="Sandboxes kept ready that are bound to a package only when they are called, "
        "for packages that have none ready.",
    )
    pool_memory_mb: int = Field(
        256, ge=0, description="Memory of the sandboxes that one host keeps ready, in MiB."
    )
    pool_idle_seconds: float = Field(
        60.0, ge=0, description="How long a package's sandboxes are kept ready after its last use."
    )
    max_input_bytes: int = Field(
        1 * MIB, ge=1, description="Largest JSON input of a run or an invocation, in bytes."
    )
    max_output_bytes: int = Field(
        4 * MIB, ge=1, description="Largest JSON output of an invocation, in bytes."
    )
    max_log_bytes: int = Field(
        1 * MIB, ge=1, description="Log kept of one invocation, in bytes; the rest is dropped."
    )
    max_log_line_bytes: int = Field(
        16 * KIB, ge=80, description="Longest log line, in bytes; longer lines are cut."
    )
    max_secret_bytes: int = Field(
        64 * KIB, ge=1, description="Largest value of a secret, in bytes of UTF-8."
    )
    secret_rotation_batch: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Secrets that `swarm secret rotate` encrypts anew in one commit.",
    )
    master_key_source: Literal["auto", "file", "environment", "keyring"] = Field(
        "auto",
        description="Where the master key of secrets comes from: `file` (below registry/secrets), "
        "`environment` (SWARM_MASTER_KEY), `keyring` (the operating system's), or `auto`: "
        "SWARM_MASTER_KEY if it is set, else the file.",
    )
    max_memory_mb: int = Field(
        4096, ge=16, description="Most memory a manifest may ask for, in MiB."
    )
    max_processes: int = Field(64, ge=4, description="Processes and threads in one sandbox.")
    max_work_mb: int = Field(256, ge=1, description="Size of a sandbox's /tmp, in MiB.")
    max_work_files: int = Field(65_536, ge=16, description="Files in a sandbox's /tmp.")
    max_output_files_mb: int = Field(
        256, ge=1, description="Size of the files that one invocation may hand out, in MiB."
    )
    max_output_files: int = Field(1_000, ge=1, description="Files one invocation may hand out.")
    max_timeout_seconds: float = Field(
        86_400.0, gt=0, description="Longest time limit that a manifest or step may ask for."
    )
    max_package_mb: int = Field(256, ge=1, description="Size of a package unpacked, in MiB.")
    max_package_files: int = Field(10_000, ge=1, description="Files in a package.")
    max_steps: int = Field(
        10_000,
        ge=1,
        description="Steps in one workflow, with those that handle errors and those of actions.",
    )
    max_workflow_mb: int = Field(16, ge=1, description="Size of a workflow.yaml, in MiB.")
    max_instance_mb: int = Field(
        64, ge=1, description="Size of a file that `swarm workflow import` reads, in MiB."
    )
    max_items: int = Field(10_000, ge=1, description="Items that one `for_each` may run over.")
    for_each_parallel: int = Field(
        32,
        ge=1,
        description="Items of a `for_each` that run at once, where the step does not say.",
    )
    max_call_depth: int = Field(
        8, ge=1, description="How deep workflows may call workflows; the first is not counted."
    )
    max_result_mb: int = Field(
        64,
        ge=1,
        description="Size of the outputs of all items of one `for_each`, in MiB; beyond that the "
        "step fails.",
    )
    inline_value_bytes: int = Field(
        64 * KIB,
        ge=1 * KIB,
        description="Largest JSON value that the journal holds itself, in bytes; larger ones are "
        "kept as artifacts and passed by reference.",
    )
    expression_fuel: int = Field(
        100_000, ge=100, description="Instructions that one expression may take (MiniJinja fuel)."
    )
    retention_days: float = Field(
        90.0,
        ge=0,
        description="Days that runs and calls are kept after their end; 0 keeps them for ever.",
    )
    unused_days: float = Field(
        30.0,
        ge=0,
        description="Days that packages, environments and artifacts are kept which nothing refers "
        "to; 0 keeps them for ever.",
    )
    artifact_url: str | None = Field(
        None,
        description="Bucket of an S3-compatible store for packages and artifacts of many machines: "
        "s3://bucket/prefix?endpoint=https://host:port&region=eu-west-1&path_style=true. Needs "
        "database_url; without a bucket they are kept in that database, up to "
        "artifact_database_mb each.",
    )
    artifact_access_key_id: SecretStr | None = Field(
        None,
        description="Access key of the bucket (default: AWS_ACCESS_KEY_ID, or what the machine's "
        "role gives). Never printed.",
    )
    artifact_secret_access_key: SecretStr | None = Field(
        None,
        description="Secret key of the bucket (default: AWS_SECRET_ACCESS_KEY, or what the "
        "machine's role gives). Never printed.",
    )
    artifact_inline_bytes: int = Field(
        64 * KIB,
        ge=0,
        le=1 * MIB,
        description="Largest file that is kept in the database although there is a bucket, in "
        "bytes: one round trip instead of several.",
    )
    artifact_database_mb: int = Field(
        64,
        ge=1,
        le=1024,
        description="Largest file that is kept in the database where there is no bucket, in MiB.",
    )
    artifact_cache_mb: int = Field(
        10_240,
        ge=1,
        description="Copies of shared artifacts on this machine, in MiB; those that were used "
        "least recently go first.",
    )
    max_directory_mb: int = Field(
        1024,
        ge=1,
        description="Size of a local directory given to a run, in MiB, where machines share a "
        "database: it is copied then, as another machine may drive the run.",
    )
    max_directory_files: int = Field(10_000, ge=1, description="Files in such a directory.")
    artifact_timeout_seconds: float = Field(
        30.0,
        ge=1,
        description="Time limit of one request to the bucket; a request carries 8 MiB at most.",
    )
    artifact_retries: int = Field(
        5,
        ge=0,
        le=20,
        description="How often a request to the bucket or for a shared file's rows is tried again "
        "after a failure that may pass, each after a longer, random pause.",
    )
    install_timeout_seconds: float = Field(
        600.0, gt=0, description="Time limit of installing one package's dependencies."
    )
    idle_seconds: float = Field(
        5.0, ge=0, description="How long a background host waits for more work before it exits."
    )
    health_socket: Path | None = Field(
        None,
        description="Socket at which a worker tells `swarm health` whether it is ready; no other "
        "worker's.",
    )
    allowed_private_networks: tuple[str, ...] = Field(
        (),
        description="Private networks (CIDR) that a network grant may reach; comma-separated.",
    )
    microvm_image: Path | None = Field(
        None,
        description="Folder of the virtual machines' image (default: cache/microvm/image in the "
        "home); `swarm sandbox build-image` makes it.",
    )
    microvm_monitor: Literal["auto", "qemu", "firecracker"] = Field(
        "auto",
        description="What runs virtual machines: `qemu`, `firecracker` (needs KVM), or `auto`: "
        "QEMU, or Firecracker where that alone is installed.",
    )
    microvm_accelerator: Literal["auto", "kvm", "tcg"] = Field(
        "auto",
        description="How QEMU executes virtual machines: `kvm`, `tcg` (software emulation), or "
        "`auto`: KVM where a trial machine has booted with it.",
    )
    microvm_snapshots_mb: int = Field(
        4096, ge=1, description="Disk for snapshots of virtual machines, in MiB; oldest go first."
    )
    microvm_resident_mb: int = Field(
        1024,
        ge=1,
        description="Memory for snapshots of virtual machines that are held ready, in MiB.",
    )
    microvm_warm_machines: int = Field(
        2,
        ge=0,
        description="Virtual machines that one host keeps restored ahead, for packages that it "
        "calls repeatedly.",
    )
    microvm_warm_mb: int = Field(
        512, ge=0, description="Memory of the virtual machines restored ahead, in MiB."
    )
    microvm_warm_seconds: float = Field(
        60.0,
        ge=0,
        description="How long a package's virtual machines are kept restored after its last use.",
    )
    microvm_boot_seconds: float = Field(
        120.0, gt=0, description="Time limit of a virtual machine's boot, before its snapshot."
    )
    require_cgroup: bool = Field(
        False, description="Refuse to run agents when no cgroup can bound their memory."
    )


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
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        offered = nearest_names(name, Settings.model_fields)
        remedy = (
            f"did you mean {' or '.join(offered)}?" if offered else "`swarm settings` lists them"
        )
        message = f"there is no setting {name}"
        if first["type"] != "extra_forbidden":
            message = f"the setting {name} is not usable: {first['msg']}"
            remedy = f"unset it to use the default; {Settings.model_fields[name].description}"
        raise InvalidError(
            message,
            where=origin.get(name),
            remedy=remedy,
        ) from None


def setting_origins(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting that has not its default comes from: a variable, or the file's path.

    Raises:
        InvalidError: ``config.toml`` cannot be read.
    """
    return _collect(os.environ if environment is None else environment)[1]


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like a setting's and are none, and the setting's that each looks like."""
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
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
    for name in Settings.model_fields:
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
