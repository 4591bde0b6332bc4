"""A real server that speaks S3 for tests: moto's, in a process of its own, checking signatures."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

REGION = "eu-west-1"
START_SECONDS = 120.0
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@dataclass(frozen=True, slots=True)
class BucketServer:
    """One server with one user, who may do everything with buckets and nothing else."""

    endpoint: str
    access_key_id: str
    secret_access_key: str

    def create_bucket(self) -> str:
        """Make an empty bucket; return its name."""
        name = f"swarm-{secrets.token_hex(8)}"
        self._client().create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return name

    def url(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> str:
        """What the setting ``artifact_url`` is for a bucket."""
        return f"s3://{bucket}/{prefix}?endpoint={endpoint or self.endpoint}&region={REGION}"

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def uploads(self, bucket: str) -> int:
        """How many uploads in parts were begun and neither ended nor given up."""
        return len(self._client().list_multipart_uploads(Bucket=bucket).get("Uploads", ()))

    def overwrite(self, bucket: str, key: str, data: bytes) -> None:
        """Put other bytes in an object's place, as somebody with access to the bucket could."""
        self._client().put_object(Bucket=bucket, Key=key, Body=data)

    def delete(self, bucket: str, key: str) -> None:
        self._client().delete_object(Bucket=bucket, Key=key)

    def _client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )


@contextmanager
def running_bucket_server(log: Path) -> Iterator[BucketServer]:
    """A server that is gone when the context ends, or whoever started it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_until_listening(port, process)
        yield _with_user(endpoint)
    finally:
        process.kill()
        process.wait()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something accepts connections there; the kernel has no event to wait for."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"the server ended at once, with {process.returncode}")


def _with_user(endpoint: str) -> BucketServer:
    iam = boto3.client(
        "iam",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="unchecked",
        aws_secret_access_key="unchecked",
    )
    iam.create_user(UserName="swarm")
    iam.put_user_policy(
        UserName="swarm", PolicyName="buckets", PolicyDocument=json.dumps(EVERYTHING)
    )
    key = iam.create_access_key(UserName="swarm")["AccessKey"]
    # From now on every request is checked: who signed it, with what, and whether they may.
    request = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return BucketServer(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
