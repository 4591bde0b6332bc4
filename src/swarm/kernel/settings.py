"""Settings: every knob, its unit and its default, in one place.

:mod:`swarm.kernel.configuration` reads them. The reference in the documentation is generated from
this class. It is a struct of msgspec, as every command makes one before it does anything else.
"""

# Without postponed evaluation of annotations: msgspec would evaluate each of these texts again.

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import NODEFAULT, Meta, Struct, field, structs

SECRET_PREFIX = "SWARM_SECRET_"
MASTER_KEY_VARIABLE = "SWARM_MASTER_KEY"

KIB = 1024
MIB = 1024 * KIB


class SecretStr:
    """A text that shows itself nowhere but to who asks for it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    def __str__(self) -> str:
        return "**********"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of one Swarm home."""

    home: Annotated[Path, Meta(description="Folder that holds everything Swarm keeps.")] = Path(
        "~/.swarm"
    )
    database_listen_url: Annotated[
        SecretStr | None,
        Meta(
            description="The PostgreSQL database of `database_url` past a pooler: notifications "
            "need a connection of their own, which PgBouncer in transaction mode does not give. "
            "Never printed."
        ),
    ] = None
    lease_seconds: Annotated[
        float,
        Meta(
            ge=1.0,
            description="On PostgreSQL: how long a process that drives runs may go unheard before "
            "others take its runs over; it renews its lease every quarter of that.",
        ),
    ] = 20.0
    drain_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a worker that is told to stop lets its runs go on, before it "
            "leaves them to others.",
        ),
    ] = 10.0
    durability: Annotated[
        Literal["full", "normal"],
        Meta(
            description="What was committed survives the death of processes and, with `full`, the "
            "loss of power; with `normal` that may lose the last commits, and breaks nothing."
        ),
    ] = "full"
    database_timeout_seconds: Annotated[
        float, Meta(gt=0, description="How long a write waits for another process's lock.")
    ] = 10.0
    database_url: Annotated[
        SecretStr | None,
        Meta(
            description="PostgreSQL database of many machines, "
            "postgresql://user:password@host/name; without one, the home's own SQLite file is "
            "used. Never printed."
        ),
    ] = None
    database_writers: Annotated[
        int, Meta(ge=1, le=16, description="Connections of one process that write to PostgreSQL.")
    ] = 2
    database_readers: Annotated[
        int, Meta(ge=1, le=64, description="Connections of one process that read from PostgreSQL.")
    ] = 4
    database_reconnect_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a PostgreSQL server that went away is waited for, before what "
            "waits for it fails.",
        ),
    ] = 30.0
    max_concurrent_runs: Annotated[
        int, Meta(ge=1, description="Runs that one host drives at once.")
    ] = 50
    max_concurrent_invocations: Annotated[
        int,
        Meta(ge=1, description="Sandboxes that one host runs at once (default: twice the cores)."),
    ] = field(default_factory=lambda: max(2, (os.cpu_count() or 1) * 2))
    pool_ready_per_package: Annotated[
        int,
        Meta(
            ge=0,
            description="Sandboxes kept ready for one package; 0 builds each when it is needed.",
        ),
    ] = 2
    pool_ready: Annotated[
        int, Meta(ge=0, description="Sandboxes kept ready by one host, in all.")
    ] = 16
    pool_blank: Annotated[
        int,
        Meta(
            ge=0,
            description="Sandboxes kept ready that are bound to a package only when they are "
            "called, for packages that have none ready.",
        ),
    ] = 2
    pool_memory_mb: Annotated[
        int, Meta(ge=0, description="Memory of the sandboxes that one host keeps ready, in MiB.")
    ] = 256
    pool_idle_seconds: Annotated[
        float,
        Meta(ge=0, description="How long a package's sandboxes are kept ready after its last use."),
    ] = 60.0
    max_input_bytes: Annotated[
        int, Meta(ge=1, description="Largest JSON input of a run or an invocation, in bytes.")
    ] = 1 * MIB
    max_output_bytes: Annotated[
        int, Meta(ge=1, description="Largest JSON output of an invocation, in bytes.")
    ] = 4 * MIB
    max_log_bytes: Annotated[
        int, Meta(ge=1, description="Log kept of one invocation, in bytes; the rest is dropped.")
    ] = 1 * MIB
    max_log_line_bytes: Annotated[
        int, Meta(ge=80, description="Longest log line, in bytes; longer lines are cut.")
    ] = 16 * KIB
    max_secret_bytes: Annotated[
        int, Meta(ge=1, description="Largest value of a secret, in bytes of UTF-8.")
    ] = 64 * KIB
    secret_rotation_batch: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Secrets that `swarm secret rotate` encrypts anew in one commit.",
        ),
    ] = 100
    master_key_source: Annotated[
        Literal["auto", "file", "environment", "keyring"],
        Meta(
            description="Where the master key of secrets comes from: `file` (below "
            "registry/secrets), `environment` (SWARM_MASTER_KEY), `keyring` (the operating "
            "system's), or `auto`: SWARM_MASTER_KEY if it is set, else the file."
        ),
    ] = "auto"
    max_memory_mb: Annotated[
        int, Meta(ge=16, description="Most memory a manifest may ask for, in MiB.")
    ] = 4096
    max_processes: Annotated[
        int, Meta(ge=4, description="Processes and threads in one sandbox.")
    ] = 64
    max_work_mb: Annotated[int, Meta(ge=1, description="Size of a sandbox's /tmp, in MiB.")] = 256
    max_work_files: Annotated[int, Meta(ge=16, description="Files in a sandbox's /tmp.")] = 65_536
    max_output_files_mb: Annotated[
        int, Meta(ge=1, description="Size of the files that one invocation may hand out, in MiB.")
    ] = 256
    max_output_files: Annotated[
        int, Meta(ge=1, description="Files one invocation may hand out.")
    ] = 1_000
    max_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest time limit that a manifest or step may ask for.")
    ] = 86_400.0
    max_package_mb: Annotated[
        int, Meta(ge=1, description="Size of a package unpacked, in MiB.")
    ] = 256
    max_package_files: Annotated[int, Meta(ge=1, description="Files in a package.")] = 10_000
    max_steps: Annotated[
        int,
        Meta(
            ge=1,
            description="Steps in one workflow, with those that handle errors and those of "
            "actions.",
        ),
    ] = 10_000
    max_workflow_mb: Annotated[int, Meta(ge=1, description="Size of a workflow.yaml, in MiB.")] = 16
    max_instance_mb: Annotated[
        int, Meta(ge=1, description="Size of a file that `swarm workflow import` reads, in MiB.")
    ] = 64
    max_items: Annotated[int, Meta(ge=1, description="Items that one `for_each` may run over.")] = (
        10_000
    )
    for_each_parallel: Annotated[
        int,
        Meta(
            ge=1, description="Items of a `for_each` that run at once, where the step does not say."
        ),
    ] = 32
    max_call_depth: Annotated[
        int,
        Meta(ge=1, description="How deep workflows may call workflows; the first is not counted."),
    ] = 8
    max_result_mb: Annotated[
        int,
        Meta(
            ge=1,
            description="Size of the outputs of all items of one `for_each`, in MiB; beyond that "
            "the step fails.",
        ),
    ] = 64
    inline_value_bytes: Annotated[
        int,
        Meta(
            ge=1 * KIB,
            description="Largest JSON value that the journal holds itself, in bytes; larger ones "
            "are kept as artifacts and passed by reference.",
        ),
    ] = 64 * KIB
    expression_fuel: Annotated[
        int, Meta(ge=100, description="Instructions that one expression may take (MiniJinja fuel).")
    ] = 100_000
    retention_days: Annotated[
        float,
        Meta(
            ge=0,
            description="Days that runs and calls are kept after their end; 0 keeps them for ever.",
        ),
    ] = 90.0
    unused_days: Annotated[
        float,
        Meta(
            ge=0,
            description="Days that packages, environments and artifacts are kept which nothing "
            "refers to; 0 keeps them for ever.",
        ),
    ] = 30.0
    artifact_url: Annotated[
        str | None,
        Meta(
            description="Bucket of an S3-compatible store for packages and artifacts of many "
            "machines: "
            "s3://bucket/prefix?endpoint=https://host:port&region=eu-west-1&path_style=true. Needs"
            " database_url; without a bucket they are kept in that database, up to "
            "artifact_database_mb each."
        ),
    ] = None
    artifact_access_key_id: Annotated[
        SecretStr | None,
        Meta(
            description="Access key of the bucket (default: AWS_ACCESS_KEY_ID, or what the "
            "machine's role gives). Never printed."
        ),
    ] = None
    artifact_secret_access_key: Annotated[
        SecretStr | None,
        Meta(
            description="Secret key of the bucket (default: AWS_SECRET_ACCESS_KEY, or what the "
            "machine's role gives). Never printed."
        ),
    ] = None
    artifact_inline_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 * MIB,
            description="Largest file that is kept in the database although there is a bucket, in "
            "bytes: one round trip instead of several.",
        ),
    ] = 64 * KIB
    artifact_database_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="Largest file that is kept in the database where there is no bucket, in "
            "MiB.",
        ),
    ] = 64
    artifact_cache_mb: Annotated[
        int,
        Meta(
            ge=1,
            description="Copies of shared artifacts on this machine, in MiB; those that were used "
            "least recently go first.",
        ),
    ] = 10_240
    max_directory_mb: Annotated[
        int,
        Meta(
            ge=1,
            description="Size of a local directory given to a run, in MiB, where machines share a "
            "database: it is copied then, as another machine may drive the run.",
        ),
    ] = 1024
    max_directory_files: Annotated[int, Meta(ge=1, description="Files in such a directory.")] = (
        10_000
    )
    artifact_timeout_seconds: Annotated[
        float,
        Meta(
            ge=1,
            description="Time limit of one request to the bucket; a request carries 8 MiB at most.",
        ),
    ] = 30.0
    artifact_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=20,
            description="How often a request to the bucket or for a shared file's rows is tried "
            "again after a failure that may pass, each after a longer, random pause.",
        ),
    ] = 5
    install_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Time limit of installing one package's dependencies.")
    ] = 600.0
    idle_seconds: Annotated[
        float,
        Meta(ge=0, description="How long a background host waits for more work before it exits."),
    ] = 5.0
    health_socket: Annotated[
        Path | None,
        Meta(
            description="Socket at which a worker tells `swarm health` whether it is ready; no "
            "other worker's."
        ),
    ] = None
    allowed_private_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Private networks (CIDR) that a network grant may reach; comma-separated."
        ),
    ] = ()
    microvm_image: Annotated[
        Path | None,
        Meta(
            description="Folder of the virtual machines' image (default: cache/microvm/image in "
            "the home); `swarm sandbox build-image` makes it."
        ),
    ] = None
    microvm_monitor: Annotated[
        Literal["auto", "qemu", "firecracker"],
        Meta(
            description="What runs virtual machines: `qemu`, `firecracker` (needs KVM), or `auto`:"
            " QEMU, or Firecracker where that alone is installed."
        ),
    ] = "auto"
    microvm_accelerator: Annotated[
        Literal["auto", "kvm", "tcg"],
        Meta(
            description="How QEMU executes virtual machines: `kvm`, `tcg` (software emulation), or"
            " `auto`: KVM where a trial machine has booted with it."
        ),
    ] = "auto"
    microvm_snapshots_mb: Annotated[
        int,
        Meta(ge=1, description="Disk for snapshots of virtual machines, in MiB; oldest go first."),
    ] = 4096
    microvm_resident_mb: Annotated[
        int,
        Meta(
            ge=1,
            description="Memory for snapshots of virtual machines that are held ready, in MiB.",
        ),
    ] = 1024
    microvm_warm_machines: Annotated[
        int,
        Meta(
            ge=0,
            description="Virtual machines that one host keeps restored ahead, for packages that it"
            " calls repeatedly.",
        ),
    ] = 2
    microvm_warm_mb: Annotated[
        int, Meta(ge=0, description="Memory of the virtual machines restored ahead, in MiB.")
    ] = 512
    microvm_warm_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a package's virtual machines are kept restored after its last "
            "use.",
        ),
    ] = 60.0
    microvm_boot_seconds: Annotated[
        float,
        Meta(gt=0, description="Time limit of a virtual machine's boot, before its snapshot."),
    ] = 120.0
    require_cgroup: Annotated[
        bool, Meta(description="Refuse to run agents when no cgroup can bound their memory.")
    ] = False


class Setting(Struct, frozen=True):
    """What one setting is."""

    kind: Any
    """Its type without bounds: ``int``, ``Path | None``, ``Literal["a", "b"]``, ..."""
    bounded: Any
    """Its type with its bounds, as msgspec checks it."""
    bounds: Meta
    meaning: str
    default: Any


def known_settings() -> dict[str, Setting]:
    """Every setting by its name, in the order of :class:`Settings`."""
    known = {}
    for each in structs.fields(Settings):
        kind, meta = get_args(each.type)
        default = each.default if each.default_factory is NODEFAULT else each.default_factory()
        known[each.name] = Setting(kind, each.type, meta, meta.description, default)
    return known
