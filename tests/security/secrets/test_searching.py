"""The control: a secret that was planted is found, wherever and however."""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import json
import quopri
import random
import shlex
import sqlite3
import urllib.parse
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.security.secrets.searching import HALF, PIECE, Searcher, make_value

FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "in JSON": lambda value: json.dumps({"a": [value]}).encode(),
    "in JSON in JSON": lambda value: json.dumps(json.dumps(value)).encode(),
    "in a URL": lambda value: urllib.parse.quote(value, safe="").encode(),
    "in a form": lambda value: urllib.parse.urlencode({"a": value}).encode(),
    "all percents": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()).encode(),
    "in HTML": lambda value: html.escape(value).encode(),
    "in a shell": lambda value: shlex.quote(value).encode(),
    "in Python": lambda value: repr(value).encode(),
    "as Python's bytes": lambda value: repr(value.encode()).encode(),
    "in mail": lambda value: quopri.encodestring(value.encode()),
    "in UTF-16": lambda value: value.encode("utf-16"),
    "hexadecimal": lambda value: value.encode().hex().encode(),
    "HEXADECIMAL": lambda value: value.encode().hex().upper().encode(),
    "backwards": lambda value: value[::-1].encode(),
    "cut at its start": lambda value: value[-PIECE:].encode(),
    "cut at its end": lambda value: value[:PIECE].encode(),
    "cut on both sides": lambda value: value[3 : 3 + PIECE].encode(),
    "in base64": lambda value: base64.b64encode(value.encode()),
    "in base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()),
    "in base64 after one": lambda value: base64.b64encode(b"a" + value.encode() + b"z"),
    "in base64 after two": lambda value: base64.b64encode(b"ab" + value.encode() + b"z"),
    "in lines of base64": lambda value: base64.encodebytes(b"user:" + value.encode() * 3),
    "a half in base64": lambda value: binascii.b2a_base64(value[: HALF - 2].encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found(form: str, rng: random.Random) -> None:
    for _ in range(20):
        value = make_value(rng)
        shown = FORMS[form](value)
        noise = rng.randbytes(1_000)
        assert Searcher({"TOKEN": value}).in_bytes(noise + shown + noise), shown


def test_nothing_is_found_where_nothing_is(rng: random.Random) -> None:
    searcher = Searcher({"TOKEN": make_value(rng)})
    others = " ".join(FORMS[form](make_value(rng)).decode("latin-1") for form in FORMS)
    assert searcher.in_bytes(others.encode() + rng.randbytes(100_000)) == set()


def test_every_place_below_a_folder_is_searched(tmp_path: Path, rng: random.Random) -> None:
    value = make_value(rng)
    data, name = value.encode(), value.replace("/", "_")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / ".hidden").write_bytes(data)
    (tmp_path / "deep" / "er" / name).touch()
    (tmp_path / "link").symlink_to(value)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(data))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", data)
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE t (a, b)")
        for length in range(400, 500):  # somewhere it lies on two pages
            connection.execute("INSERT INTO t VALUES (?, NULL)", ("." * length + value,))
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "blobs.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (?)", (b"\0" + data,))
        connection.commit()
    (tmp_path / "clean").write_bytes(rng.randbytes(1_000))
    found = Searcher({"TOKEN": value}).below(tmp_path)
    hiding = {"deep/.hidden", f"deep/er/{name}", "link", "packed.gz", "packed.zip"}
    assert set(found) == hiding | {"rows.db", "blobs.db"}
