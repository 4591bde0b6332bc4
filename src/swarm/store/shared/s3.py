"""The bytes of blobs in a bucket of an S3-compatible store, through obstore (Rust's object_store).

obstore signs, pools connections and tries requests again after pauses with jitter. Reading goes by
ranges, each a request with a time limit of its own, so that no single request is as long as the
file; writing goes by parts of the same size for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, BinaryIO, Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from swarm.kernel.errors import InvalidError, NotFoundError, SwarmError, UnavailableError
from swarm.kernel.settings import MIB, Settings
from swarm.store.shared.addresses import BucketAddress, parse_bucket_address
from swarm.store.shared.ports import Blob

PART_BYTES: Final = 8 * MIB
"""Bytes of one request. A bucket takes 10,000 parts: 78 GiB."""
PARTS_AT_ONCE: Final = 2
"""Parts of one upload that are on their way at once; with PART_BYTES, what it takes of memory."""
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=5)
_FAILURES = (BaseError, OSError, ValueError)


class BucketBytes:
    """Implements :class:`swarm.store.shared.ports.BlobBytes`."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            InvalidError: ``artifact_url`` cannot be used.
        """
        self._address = parse_bucket_address(settings.artifact_url or "")
        self._store = _open(self._address, settings)

    def write(self, blob: Blob, source: BinaryIO) -> None:
        try:
            obstore.put(
                self._store,
                blob.location,
                source,
                use_multipart=blob.size > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        except _FAILURES as error:
            raise self._explain(error, "written") from None

    def read(self, blob: Blob) -> Iterator[bytes]:
        for start in range(0, blob.size, PART_BYTES):
            length = min(PART_BYTES, blob.size - start)
            try:
                piece = obstore.get_range(self._store, blob.location, start=start, length=length)
            except FileNotFoundError:
                raise NotFoundError(
                    f"{blob.kind} {blob.key} is gone from the bucket",
                    where=f"{self._address}/{blob.location}",
                    remedy="was it deleted there, or artifact_url changed? Put the file again",
                ) from None
            except _FAILURES as error:
                raise self._explain(error, "read") from None
            yield piece.to_bytes()

    def holds(self, blob: Blob) -> bool:
        try:
            return obstore.head(self._store, blob.location)["size"] == blob.size
        except FileNotFoundError:
            return False
        except _FAILURES as error:
            raise self._explain(error, "read") from None

    def remove(self, blob: Blob) -> None:
        try:
            obstore.delete(self._store, blob.location)
        except FileNotFoundError:
            return
        except _FAILURES as error:
            raise self._explain(error, "changed") from None

    def close(self) -> None:
        """Its connections close with the last reference to it."""

    def _explain(self, error: Exception, deed: str) -> SwarmError:
        where = str(self._address)
        told = _first_line(error)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return UnavailableError(
                f"the bucket cannot be {deed}: the store refuses the credentials ({told})",
                where=where,
                remedy="check SWARM_ARTIFACT_ACCESS_KEY_ID and SWARM_ARTIFACT_SECRET_ACCESS_KEY "
                "(or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), the region, and that they may "
                "get, put and delete objects below the prefix",
            )
        return UnavailableError(
            f"the bucket cannot be {deed}: {told}",
            where=where,
            remedy="check artifact_url, that the bucket is there and that this machine reaches it",
        )


def _open(address: BucketAddress, settings: Settings) -> S3Store:
    limit = timedelta(seconds=settings.artifact_timeout_seconds)
    given: dict[str, Any] = {
        "endpoint": address.endpoint,
        "region": address.region or (None if address.endpoint is None else "us-east-1"),
    }
    if settings.artifact_access_key_id is not None:
        given["access_key_id"] = settings.artifact_access_key_id.get_secret_value()
    if settings.artifact_secret_access_key is not None:
        given["secret_access_key"] = settings.artifact_secret_access_key.get_secret_value()
    try:
        return S3Store(
            address.bucket,
            prefix=address.prefix or None,
            virtual_hosted_style_request=not address.path_style,
            client_options={
                "allow_http": (address.endpoint or "").startswith("http:"),
                "connect_timeout": min(limit, timedelta(seconds=5)),
                "timeout": limit,
            },
            retry_config={
                "max_retries": settings.artifact_retries,
                "retry_timeout": limit * (settings.artifact_retries + 1),
                "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
            },
            **{name: value for name, value in given.items() if value is not None},
        )
    except _FAILURES as error:
        raise InvalidError(
            f"the setting artifact_url is not usable: {_first_line(error)}",
            where=str(address),
            remedy="see the reference of settings for its form",
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500].strip()
