"""A vault over a real database and real key files: what goes wrong loses nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from swarm.kernel.errors import (
    ConflictError,
    DatabaseError,
    InputError,
    MasterKeyError,
    NotFoundError,
    RefusedError,
)
from swarm.kernel.settings import Settings
from swarm.store.records import SecretIdentity
from swarm.store.sqlite import SqliteStore, open_store
from swarm.vault.envelope import MasterKey
from swarm.vault.key_files import KeyFiles
from swarm.vault.key_ring import KeyRing, KeySource, key_to_text
from swarm.vault.key_sources import EnvironmentKeys
from swarm.vault.vault import NewSecret, Vault
from tests.conftest import Scale

MAX_BYTES = 100
BATCH = 10
DEADLINE_SECONDS = 30
TOKEN = SecretIdentity("TOKEN")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "registry.db", Settings(durability="normal"))
    yield opened
    await opened.close()


def vault_over(store: SqliteStore, keys: KeySource) -> Vault:
    return Vault(store, keys, max_bytes=MAX_BYTES, rotation_batch=BATCH)


Open = Callable[[], Vault]


@pytest.fixture
def open_one(store: SqliteStore, folder: Path) -> Open:
    """A vault as another process would open it: it knows no key yet."""
    return lambda: vault_over(store, KeyFiles(folder))


async def put(vault: Vault, value: str = "value", identity: SecretIdentity = TOKEN) -> None:
    await vault.put([NewSecret(identity, value)])


def key_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.key")}


def change(store_path: Path, sql: str) -> None:
    with closing(sqlite3.connect(store_path, isolation_level=None)) as connection:
        assert connection.execute(sql).rowcount


async def test_the_first_secret_makes_a_private_key_and_later_ones_none(
    open_one: Open, folder: Path
) -> None:
    vault = open_one()
    await put(vault)
    made = key_files(folder)
    assert list(made) == ["master-0001.key"]
    assert (folder / "master-0001.key").stat().st_mode & 0o777 == 0o600
    await put(vault, "other")
    await put(open_one(), "third", SecretIdentity("MORE"))
    assert key_files(folder) == made
    assert await open_one().get(TOKEN) == "other"


async def test_many_first_secrets_at_once_make_one_key(open_one: Open, folder: Path) -> None:
    """More than the pool has threads: who waits for the lock must not keep its holder from one."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    names = [SecretIdentity(f"S{number}") for number in range(20)]
    await asyncio.gather(*(put(open_one(), one.name, one) for one in names))
    assert list(key_files(folder)) == ["master-0001.key"]
    vault = open_one()
    assert [await vault.get(one) for one in names] == [one.name for one in names]


async def test_a_run_reads_the_narrowest_scope(open_one: Open) -> None:
    vault = open_one()
    await put(vault, "organization's", SecretIdentity.of_organization("TOKEN"))
    assert await vault.find("TOKEN", "flow", "default") == "organization's"
    await put(vault, "project's")
    await put(vault, "workflow's", SecretIdentity("TOKEN", "flow"))
    assert await vault.find("TOKEN", "flow", "default") == "workflow's"
    assert await vault.find("TOKEN", "other", "default") == "project's"
    assert await vault.find("TOKEN", None, "default") == "project's"
    assert await vault.find("TOKEN", "flow", "elsewhere") == "organization's"
    assert await vault.find("NONE", "flow", "default") is None


@pytest.mark.parametrize("replacement", [None, MasterKey.of(b"w" * 32)])
async def test_without_the_right_key_nothing_is_read_changed_or_made(
    open_one: Open, folder: Path, store: SqliteStore, replacement: MasterKey | None
) -> None:
    await put(open_one())
    path = folder / "master-0001.key"
    right = path.read_text()
    before = await store.list_secrets()
    path.unlink()
    if replacement:
        path.touch(0o600)
        path.write_text(f"{replacement.id} {key_to_text(replacement)}\n")
    there = key_files(folder)
    vault = open_one()
    attempts = [
        lambda: vault.get(TOKEN),
        lambda: put(vault, "new"),
        lambda: put(vault, "new", SecretIdentity("MORE")),
        vault.rotate,
    ]
    for attempt in attempts:
        with pytest.raises(MasterKeyError, match=before[0].key_id) as caught:
            await attempt()
        assert "nothing was changed" in str(caught.value)
        assert caught.value.where == str(folder)
    assert key_files(folder) == there
    assert await store.list_secrets() == before
    path.touch(0o600)
    path.write_text(right)
    assert await vault.get(TOKEN) == "value"


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda path: path.write_text(""), MasterKeyError),
        (lambda path: path.write_text("mk_0 AAAA\n"), MasterKeyError),
        (lambda path: path.write_text("mk_0 " + key_to_text(MasterKey.of(b"x" * 32))), None),
        (lambda path: path.write_bytes(os.urandom(5_000)), MasterKeyError),
        (lambda path: path.chmod(0o640), RefusedError),
        (lambda path: path.chmod(0o604), RefusedError),
        (lambda path: path.parent.chmod(0o750), RefusedError),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), MasterKeyError),
        (lambda path: (path.unlink(), path.mkdir()), MasterKeyError),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), MasterKeyError),
    ],
)
async def test_a_key_file_that_is_spoilt_or_open_is_refused_and_left(
    open_one: Open, folder: Path, spoil: Callable[[Path], object], error: type[Exception] | None
) -> None:
    await put(open_one())
    spoil(folder / "master-0001.key")
    names = sorted(path.name for path in folder.iterdir())
    for attempt in (open_one().get(TOKEN), put(open_one()), open_one().rotate()):
        with pytest.raises(error or MasterKeyError):
            await attempt
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("value", ["", "x" * (MAX_BYTES + 1), "ü" * MAX_BYTES, "half a \ud83d"])
async def test_values_that_cannot_be_are_refused_before_a_key_is_made(
    open_one: Open, folder: Path, value: str
) -> None:
    with pytest.raises(InputError) as caught:
        await put(open_one(), value)
    assert not value or value not in str(caught.value)
    assert key_files(folder) == {}


async def test_an_import_is_all_or_nothing(open_one: Open) -> None:
    vault = open_one()
    await put(vault)
    both = [NewSecret(SecretIdentity("NEW"), "n"), NewSecret(TOKEN, "t")]
    with pytest.raises(ConflictError):
        await vault.put(both, may_replace=False)
    with pytest.raises(NotFoundError):
        await vault.get(SecretIdentity("NEW"))
    assert await vault.get(TOKEN) == "value"


async def test_an_unknown_name_is_told_with_the_nearest(open_one: Open) -> None:
    await put(open_one(), identity=SecretIdentity("GITHUB_TOKEN"))
    with pytest.raises(NotFoundError, match="did you mean GITHUB_TOKEN"):
        await open_one().get(SecretIdentity("GITHUB_TOKN"))
    with pytest.raises(NotFoundError, match="there is one of the project"):
        await open_one().get(SecretIdentity("GITHUB_TOKEN", "flow"))
    with pytest.raises(NotFoundError, match="no secret GITHUB_TOKEN of the organization"):
        await open_one().get(SecretIdentity.of_organization("GITHUB_TOKEN"))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE secrets SET encrypted_value = (SELECT encrypted_value FROM secrets"
        " WHERE name = 'OTHER') WHERE name = 'TOKEN'",
        "UPDATE secrets SET (encrypted_value, wrapped_key) = (SELECT encrypted_value, wrapped_key"
        " FROM secrets WHERE name = 'OTHER') WHERE name = 'TOKEN'",
        "UPDATE secrets SET name = iif(name = 'TOKEN', 'x', 'TOKEN') WHERE name <> 'THIRD'",
        "UPDATE secrets SET wrapped_key = zeroblob(61) WHERE name = 'TOKEN'",
        "UPDATE secrets SET encrypted_value = x'' WHERE name = 'TOKEN'",
    ],
)
async def test_rows_changed_by_hand_are_noticed(
    open_one: Open, tmp_path: Path, store: SqliteStore, sql: str
) -> None:
    for name in ("TOKEN", "OTHER", "THIRD"):
        await put(open_one(), f"value of {name}", SecretIdentity(name))
    change(tmp_path / "registry.db", sql)
    with pytest.raises(DatabaseError, match="TOKEN"):
        await open_one().get(TOKEN)


async def test_a_secret_moved_to_another_scope_is_noticed(open_one: Open, tmp_path: Path) -> None:
    await put(open_one(), identity=SecretIdentity("TOKEN", "mine"))
    change(tmp_path / "registry.db", "UPDATE secrets SET workflow_name = 'yours'")
    with pytest.raises(DatabaseError):
        await open_one().find("TOKEN", "yours", "default")
    change(tmp_path / "registry.db", "UPDATE secrets SET workflow_name = 'mine', project_id = 'p'")
    with pytest.raises(DatabaseError):
        await open_one().find("TOKEN", "mine", "p")
    to_organization = "scope = 'organization', organization_id = 'default', workflow_name = NULL"
    change(tmp_path / "registry.db", f"UPDATE secrets SET {to_organization}")
    with pytest.raises(DatabaseError):
        await open_one().find("TOKEN", None, "default")


async def test_a_rotation_leaves_every_value_readable_also_to_vaults_opened_before(
    open_one: Open, folder: Path, store: SqliteStore
) -> None:
    count = BATCH * 2 + 5
    names = [SecretIdentity(f"S{number}") for number in range(count)]
    await open_one().put([NewSecret(one, one.name) for one in names])
    old = open_one()
    assert await old.get(names[0]) == "S0"
    told: list[int] = []
    done = await open_one().rotate(on_batch=told.append)
    assert (done.made_key, done.rewrapped, done.retired) == (True, count, 0)
    assert told == [BATCH, BATCH * 2, count]
    assert await store.count_secrets_by_key() == {done.key_id: count}
    assert sorted(key_files(folder)) == ["master-0001.key", "master-0002.key"]
    assert [await old.get(one) for one in names] == [one.name for one in names]
    retired = await open_one().rotate(retire=True)
    assert retired.retired == 2
    assert list(key_files(folder)) == ["master-0003.key"]
    assert await old.get(names[-1]) == names[-1].name


async def test_rotations_retirements_and_writes_at_once_lose_nothing(
    open_one: Open, folder: Path, store: SqliteStore, scale: Scale
) -> None:
    names = [SecretIdentity(f"S{number}") for number in range(40)]
    await open_one().put([NewSecret(one, "0") for one in names])
    rounds = scale(small=5, full=100)

    async def write(number: int) -> None:
        vault = open_one()
        for turn in range(rounds):
            await put(vault, str(turn), names[number])
            assert await vault.get(names[number]) == str(turn)

    async def rotate(retire: bool) -> None:
        vault = open_one()
        for _ in range(rounds):
            await vault.rotate(retire=retire)

    writers = [write(number) for number in range(8)]
    await asyncio.gather(*writers, rotate(True), rotate(False), rotate(True))
    done = await open_one().rotate(retire=True)
    assert await store.count_secrets_by_key() == {done.key_id: len(names)}
    vault = open_one()
    values = [await vault.get(one) for one in names]
    assert values == [str(rounds - 1)] * 8 + ["0"] * 32
    assert len(key_files(folder)) == 1


class HeldUp(KeyFiles):
    """Key files whose reader is held up between a secret's record and its key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.arrived, self.may_go_on = threading.Event(), threading.Event()

    def load(self) -> KeyRing:
        self.arrived.set()
        assert self.may_go_on.wait(DEADLINE_SECONDS)
        return super().load()


async def test_a_key_that_is_retired_while_its_secret_is_read_is_not_missed(
    open_one: Open, folder: Path, store: SqliteStore
) -> None:
    await put(open_one())
    keys = HeldUp(folder)
    reading = asyncio.create_task(vault_over(store, keys).get(TOKEN))
    assert await asyncio.to_thread(keys.arrived.wait, DEADLINE_SECONDS)
    assert (await open_one().rotate(retire=True)).retired == 1
    keys.may_go_on.set()
    assert await reading == "value"


async def test_who_wants_the_keys_alone_is_not_passed_by_who_shares_them(folder: Path) -> None:
    keys, order = KeyFiles(folder), list[str]()

    async def enter(name: str, *, exclusive: bool) -> None:
        async with keys.locked(exclusive=exclusive):
            order.append(name)

    async with keys.locked(exclusive=False):
        alone = asyncio.create_task(enter("alone", exclusive=True))
        await asyncio.sleep(0)
        late = [asyncio.create_task(enter("late", exclusive=False)) for _ in range(3)]
        await asyncio.sleep(0)
        await enter_at_once(folder)
        assert order == []
    await asyncio.gather(alone, *late)
    assert order == ["alone", "late", "late", "late"]


async def enter_at_once(folder: Path) -> None:
    """The lock is still shared: it is not what keeps those who are late out."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


async def test_a_damaged_secret_stops_neither_the_others_nor_is_its_key_retired(
    open_one: Open, folder: Path, tmp_path: Path
) -> None:
    await put(open_one())
    await put(open_one(), "good", SecretIdentity("GOOD"))
    change(tmp_path / "registry.db", "UPDATE secrets SET name = 'MOVED' WHERE name = 'TOKEN'")
    with pytest.raises(DatabaseError, match="MOVED"):
        await open_one().rotate(retire=True)
    assert await open_one().get(SecretIdentity("GOOD")) == "good"
    assert len(key_files(folder)) == 2
    change(tmp_path / "registry.db", "UPDATE secrets SET name = 'TOKEN' WHERE name = 'MOVED'")
    assert await open_one().get(TOKEN) == "value"


async def test_keys_of_the_environment_rotate_by_a_new_one_in_front(
    store: SqliteStore, folder: Path
) -> None:
    old, new = MasterKey.generate(), MasterKey.generate()

    def vault(*keys: MasterKey) -> Vault:
        text = ", ".join(map(key_to_text, keys))
        return vault_over(store, EnvironmentKeys({"SWARM_MASTER_KEY": text}, folder))

    with pytest.raises(RefusedError, match="does not make"):
        await put(vault())
    await put(vault(old))
    with pytest.raises(RefusedError, match="does not make"):
        await vault(old).rotate()
    with pytest.raises(MasterKeyError, match=old.id):
        await vault(new).rotate()
    done = await vault(new, old).rotate()
    assert (done.key_id, done.made_key, done.rewrapped) == (new.id, False, 1)
    assert await vault(new).get(TOKEN) == "value"
    assert key_files(folder) == {}


@pytest.mark.parametrize("text", ["x", "AAAA", "A" * 43, "not base64 at all!"])
async def test_a_malformed_key_in_the_environment_is_told_without_it(
    store: SqliteStore, folder: Path, text: str
) -> None:
    vault = vault_over(store, EnvironmentKeys({"SWARM_MASTER_KEY": text}, folder))
    with pytest.raises(MasterKeyError) as caught:
        await put(vault)
    assert len(text) < 4 or text not in str(caught.value)
