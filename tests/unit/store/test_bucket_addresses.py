"""What ``artifact_url`` may say."""

from __future__ import annotations

import pytest

from swarm.kernel.errors import InvalidError
from swarm.store.shared.addresses import BucketAddress, parse_bucket_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://files", BucketAddress("files")),
        ("s3://files/", BucketAddress("files")),
        ("s3://files/a//b/", BucketAddress("files", "a/b")),
        (
            "s3://files/a?endpoint=http://10.0.0.1:9000/&region=here",
            BucketAddress("files", "a", "http://10.0.0.1:9000", "here", path_style=True),
        ),
        (
            "s3://files?endpoint=https://store.example&path_style=false",
            BucketAddress("files", "", "https://store.example", None, path_style=False),
        ),
        ("s3://files?region=eu-west-1", BucketAddress("files", "", None, "eu-west-1")),
    ],
)
def test_an_address_is_taken_apart(url: str, expected: BucketAddress) -> None:
    assert parse_bucket_address(url) == expected


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "bucket"),
        ("files", "bucket"),
        ("https://files", "bucket"),
        ("s3:///files", "bucket"),
        ("s3://key:secret@files", "password"),
        ("s3://files?endpoint=host:9000", "endpoint"),
        ("s3://files?endpoint=https://key:secret@host", "endpoint"),
        ("s3://files?path_style=perhaps", "path_style"),
        ("s3://files?reigon=x", "reigon"),
    ],
)
def test_what_is_wrong_with_an_address_is_told_without_its_secrets(url: str, word: str) -> None:
    with pytest.raises(InvalidError, match=word) as caught:
        parse_bucket_address(url)
    assert caught.value.remedy
    assert "key:secret" not in str(caught.value)
