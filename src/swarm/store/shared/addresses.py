"""The setting ``artifact_url``, taken apart. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from swarm.kernel.errors import InvalidError

_OPTIONS = ("endpoint", "region", "path_style")
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_FORM = "s3://bucket/prefix?endpoint=https://host:port&region=eu-west-1&path_style=true"


class BucketAddress(Struct, frozen=True):
    """A bucket of an S3-compatible store."""

    bucket: str
    prefix: str = ""
    """What every key begins with, without slashes around it."""
    endpoint: str | None = None
    """``https://host[:port]``, where it is not Amazon's own."""
    region: str | None = None
    path_style: bool = False
    """Whether the bucket stands in the path of each request rather than in the host's name."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def parse_bucket_address(url: str) -> BucketAddress:
    """The bucket that ``s3://bucket/prefix?endpoint=…&region=…&path_style=…`` names.

    With an endpoint, ``path_style`` is true unless it is given: few such servers have a name for
    each bucket.

    Raises:
        InvalidError: it is no such address, or holds a password.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise _unusable(
            "it holds a user or a password",
            "set SWARM_ARTIFACT_ACCESS_KEY_ID and SWARM_ARTIFACT_SECRET_ACCESS_KEY instead",
        )
    if parts.scheme != "s3" or not parts.netloc or parts.fragment:
        raise _unusable("it is not the address of a bucket")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise _unusable(f"it has the option {name!r}; there are {', '.join(_OPTIONS)}")
    endpoint = options.get("endpoint") or None
    if endpoint is not None:
        host = urlsplit(endpoint)
        if host.scheme not in ("http", "https") or not host.netloc or host.username is not None:
            raise _unusable("its endpoint is not http://host:port or https://host:port")
    path_style = options.get("path_style", str(endpoint is not None)).lower()
    if path_style not in _TRUTHS:
        raise _unusable("its path_style is neither true nor false")
    return BucketAddress(
        bucket=parts.netloc,
        prefix="/".join(filter(None, parts.path.split("/"))),
        endpoint=endpoint.rstrip("/") if endpoint else None,
        region=options.get("region") or None,
        path_style=_TRUTHS[path_style],
    )


def _unusable(fault: str, remedy: str = f"write {_FORM}") -> InvalidError:
    return InvalidError(f"the setting artifact_url is not usable: {fault}", remedy=remedy)
