"""A real server on loopback that speaks S3, with a bucket to fill; it can cut and throttle answers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
import s3fs
from botocore import UNSIGNED
from botocore.config import Config
from moto.server import ThreadedMotoServer

BUCKET = "gallery"


class Bucket:
    """A bucket of a server on loopback."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
        )
        self.client.create_bucket(Bucket=BUCKET)

    def upload(self, folder: Path, prefix: str) -> str:
        """Put a folder's files under a prefix; the address of the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client.upload_file(str(path), BUCKET, key, ExtraArgs={"ACL": "public-read"})
        return f"s3://{BUCKET}/{prefix}"

    def credentials(self, user: str, *, may_read: bool) -> tuple[str, str]:
        """The key and secret of a new user of the server."""
        keys = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        users = boto3.client("iam", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
        users.create_user(UserName=user)
        if may_read:
            rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
            users.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=policy)
        made = users.create_access_key(UserName=user)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that the libraries of this process and its children find, without credentials."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    use(monkeypatch, f"http://{host}:{port}")
    try:
        yield Bucket(f"http://{host}:{port}")
    finally:
        server.stop()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the libraries ask this server; fsspec would keep a connection to the one before."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def failing(endpoint: str, fails: dict[str, list[str]]) -> Iterator[str]:
    """A server in front of `endpoint` that fails where a path holds a key of `fails`, once for each item of its list.

    "cut" ends the connection in the middle of the answer, "slow down" throttles with code 503.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kinds = next((kinds for key, kinds in fails.items() if key in self.path), [])
            kind = kinds.pop(0) if kinds else ""
            if kind == "slow down":
                self._answer(503, b"<Error><Code>SlowDown</Code></Error>", {})
                return
            wanted = {"Range": self.headers["Range"]} if "Range" in self.headers else {}
            with urlopen(Request(endpoint + self.path, headers=wanted)) as answer:
                code, body, headers = answer.status, answer.read(), dict(answer.headers)
            self._answer(code, body, headers, cut=kind == "cut")

        def _answer(self, code: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
            self.send_response(code)
            for name in ("ETag", "Last-Modified", "Content-Type", "Content-Range"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
