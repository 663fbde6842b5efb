"""The launcher of SeaweedFS, which stops it by a kill."""

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from stack import seaweedfs as seaweedfs_module
from stack.ports import free_port
from stack.seaweedfs import S3Server, seaweedfs


def client(server: S3Server, **other: str) -> Any:
    keys = {
        "aws_access_key_id": server.access_key_id,
        "aws_secret_access_key": server.secret_access_key,
        "region_name": server.region,
    }
    return boto3.client("s3", endpoint_url=server.endpoint_url, **(keys | other))


def test_nothing_acknowledged_is_lost_when_the_server_is_killed_at_once(tmp_path: Path) -> None:
    """The launcher stops it by a kill. The second start is on other ports, and creates new volumes."""
    written: dict[str, str] = {}

    def put(s3: Any, bucket: str, key: str, body: bytes) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        written[f"{bucket}/{key}"] = hashlib.sha256(body).hexdigest()

    with seaweedfs(tmp_path) as server:
        s3 = client(server)
        for number in range(20):
            put(s3, server.bucket, f"small/{number}", os.urandom(1000))
        upload = s3.create_multipart_upload(Bucket=server.bucket, Key="large")["UploadId"]
        parts, digest = [], hashlib.sha256()
        for number in (1, 2):
            body = os.urandom(5 * 2**20)
            digest.update(body)
            call = {"Bucket": server.bucket, "Key": "large", "UploadId": upload}
            etag = s3.upload_part(**call, PartNumber=number, Body=body)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        s3.complete_multipart_upload(**call, MultipartUpload={"Parts": parts})
        written[f"{server.bucket}/large"] = digest.hexdigest()
        put(s3, server.bucket, "last", b"last")
    with seaweedfs(tmp_path) as server:
        s3 = client(server)
        s3.create_bucket(Bucket="second")
        put(s3, "second", "new", os.urandom(1000))
        put(s3, server.bucket, "small/0", os.urandom(1000))
    with seaweedfs(tmp_path) as server:
        s3 = client(server)
        for name, expected in written.items():
            bucket, _, key = name.partition("/")
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == expected, name


def test_a_wrong_key_is_refused(s3: S3Server) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(s3, aws_secret_access_key="guess").list_buckets()


def test_no_file_stays_in_tmp(tmp_path: Path) -> None:
    with seaweedfs(tmp_path):
        pass
    sockets = re.findall(r"/tmp/seaweedfs-\S+\.sock", (tmp_path / "seaweedfs.log").read_text())  # noqa: S108
    assert sockets, "the server creates sockets with names of its own"
    assert not any(Path(name).exists() for name in sockets)


def test_a_port_with_a_socket_of_a_killed_server_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of another user cannot be removed, and the servers would connect to it instead of each other."""
    left = socket.socket(socket.AF_UNIX)
    taken, free = free_port(), free_port()
    path = seaweedfs_module._socket_of("master", taken)
    left.bind(str(path))
    try:
        given = iter((taken, free))
        monkeypatch.setattr(seaweedfs_module, "free_port", lambda: next(given))
        assert seaweedfs_module._grpc_port("master") == free
    finally:
        left.close()
        path.unlink()


def test_what_it_keeps_is_its_users_alone_but_for_descriptions_of_volumes_that_the_folder_closes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "s3"
    with seaweedfs(folder) as server:
        client(server).put_object(Bucket=server.bucket, Key="secret", Body=os.urandom(100_000))
        modes = {path: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*")) if not path.is_socket()}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    open_to_others = {path for path, mode in modes.items() if path.is_file() and mode != 0o600}
    # It sets their mode itself, past the umask.
    assert {path.parent / path.suffix for path in open_to_others} <= {folder / "data" / ".vif"}
    assert any(path.suffix == ".dat" for path in modes)
