"""Inputs from the command line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.inputs import add_pairs, read_input, take_paths
from swarm.definitions.fields import FieldDefinition
from swarm.kernel.errors import InputError, NotFoundError
from swarm.store.artifacts import LocalArtifacts

LIMIT = 1_000

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    stream = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stream)


def field(name: str, kind: Any) -> FieldDefinition:
    return FieldDefinition(name=name, type=kind, required=False)


@pytest.mark.parametrize("argument", [None, "", "  "])
def test_no_input_is_an_empty_object(argument: str | None) -> None:
    assert read_input(argument, LIMIT) == {}


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3))
def test_json_text_is_taken_as_it_is(value: dict[str, Any]) -> None:
    assert read_input(json.dumps(value), 10_000) == value


def test_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"a": 1}')
    assert read_input(f"@{file}", LIMIT) == {"a": 1}
    for argument in ("-", "@-"):
        stdin(monkeypatch, b'{"b": 2}')
        assert read_input(argument, LIMIT) == {"b": 2}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ('{"a": 1,\n"b" 2}', "line 2 column"),
        ("[1]", "must be a JSON object, got an array"),
        ('"text"', "must be a JSON object, got a string"),
        ("3", "must be a JSON object, got a number"),
        ("null", "must be a JSON object, got null"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": "\udcff"}', "not valid JSON"),
        ("{" + " " * LIMIT + "}", "larger than the limit of 1,000 bytes"),
        ("@" + "/" * 3 + "dev/zero", "larger than the limit"),
    ],
)
def test_what_is_no_usable_object_is_refused(argument: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_input(argument, LIMIT)
    assert words in caught.value.message
    assert caught.value.remedy


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no such file"):
        read_input(f"@{tmp_path / 'none.json'}", LIMIT)
    with pytest.raises(InputError, match="cannot be read"):
        read_input(f"@{tmp_path}", LIMIT)


def test_an_endless_stream_is_read_no_further_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless, isatty=lambda: False))
        with pytest.raises(InputError, match="larger than the limit"):
            read_input("-", LIMIT)


FIELDS = [
    field("text", "string"),
    field("count", "integer"),
    field("flags", "array"),
    field("data", "file"),
    field("tree", "directory"),
]


def test_pairs_are_read_by_their_declared_type() -> None:
    pairs = ["text=3", "count=3", "flags=[true]", "data=a=b", "unknown=x"]
    assert add_pairs({"tree": "."}, pairs, FIELDS) == {
        "tree": ".",
        "text": "3",
        "count": 3,
        "flags": [True],
        "data": "a=b",
        "unknown": "x",
    }


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["text"], "not of the form name=value"),
        (["=x"], "not of the form name=value"),
        (["text=a", "text=b"], "given twice"),
        (["given=a"], "given twice"),
        (["count=three"], "`three` is not an integer"),
    ],
)
def test_bad_pairs_are_refused(pairs: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        add_pairs({"given": 1}, pairs, FIELDS)


async def test_paths_become_file_values_only_where_they_are_declared(tmp_path: Path) -> None:
    artifacts = LocalArtifacts(tmp_path / "artifacts")
    (tmp_path / "data.csv").write_text("a,b\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    values = {
        "text": str(folder),
        "data": str(tmp_path / "data.csv"),
        "tree": str(tmp_path / "link"),
        "count": 1,
    }
    taken = await take_paths(values, FIELDS, artifacts)
    assert taken.values["text"] == str(folder)
    data = taken.values["data"]
    assert (data["name"], data["size"], data["media_type"]) == ("data.csv", 4, "text/csv")
    assert artifacts.path(data["$artifact"]).read_text() == "a,b\n"
    tree = taken.values["tree"]
    assert tree["media_type"] == "inode/directory"
    assert taken.mounts == {tree["$artifact"]: str(folder)}


async def test_file_values_are_left_alone(tmp_path: Path) -> None:
    value = {"$artifact": "sha256:" + "0" * 64, "name": "x"}
    taken = await take_paths({"data": value}, FIELDS, LocalArtifacts(tmp_path))
    assert (taken.values, taken.mounts) == ({"data": value}, {})


@pytest.mark.parametrize(
    ("name", "path", "error", "words"),
    [
        ("data", "none", NotFoundError, "there is no file"),
        ("tree", "none", NotFoundError, "there is no directory"),
        ("data", "folder", InputError, "is a directory"),
        ("data", "pipe", InputError, "is not a regular file"),
        ("tree", "file", InputError, "is not a directory"),
        ("data", "", InputError, "the path is empty"),
    ],
)
async def test_paths_of_the_wrong_kind_are_refused(
    tmp_path: Path, name: str, path: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    given_path = str(tmp_path / path) if path else ""
    with pytest.raises(error, match=words):
        await take_paths({name: given_path}, FIELDS, LocalArtifacts(tmp_path / "artifacts"))


@pytest.mark.parametrize("value", [5, {"path": "x"}, ["x"]])
async def test_what_is_no_path_is_refused_with_what_to_write(tmp_path: Path, value: Any) -> None:
    artifacts = LocalArtifacts(tmp_path / "artifacts")
    with pytest.raises(InputError, match="it must be the path of a directory, got") as caught:
        await take_paths({"tree": value}, FIELDS, artifacts)
    assert caught.value.remedy == 'write the path as text: {"tree": "./path"}'
    assert (await take_paths({"tree": None}, FIELDS, artifacts)).values == {"tree": None}
