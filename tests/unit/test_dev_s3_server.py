"""The S3 server, started for real: nothing is lost, and conditions hold under concurrency."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
import xmltodict
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.core.responses import BaseResponse
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.responses import S3Response
from werkzeug.test import Client

from dev import s3_listing

ODD_NAMES = [
    "incoming/plain.csv",
    "incoming/team a/good ü+1.csv",
    "incoming/50%25+50%.csv",
    "incoming/a//b?c=d&e#f.csv",
]


class Server:
    """One server process that can be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults = folder, folder / "faults"
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        data = ["--data", str(self.folder / "s3.sqlite"), "--faults", str(self.faults)]
        self.process = subprocess.Popen([sys.executable, "-m", "dev.s3_server", "--port", str(self.port), *data])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError("the S3 server did not start in 30 s")

    def stop(self, by: int = signal.SIGTERM) -> None:
        os.kill(self.process.pid, by)
        self.process.wait(10)

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 1}, max_pool_connections=20),
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3"))
    server.client().create_bucket(Bucket="bert")
    yield server
    server.stop()


@pytest.fixture
def s3(server: Server) -> Any:
    return server.client()


def refused(call: Callable[[], Any]) -> int:
    with pytest.raises(ClientError) as error:
        call()
    status: int = error.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_kill_9_loses_nothing(server: Server, s3: Any) -> None:
    for name in ODD_NAMES:
        s3.put_object(Bucket="bert", Key=name, Body=name.encode(), ContentType="text/csv", Metadata={"team": "a"})
    s3.put_object(Bucket="bert", Key="empty", Body=b"")
    s3.delete_object(Bucket="bert", Key=ODD_NAMES[0])
    before = [s3.head_object(Bucket="bert", Key=name) for name in ODD_NAMES[1:]]
    server.stop(signal.SIGKILL)
    server.start()
    after = [s3.head_object(Bucket="bert", Key=name) for name in ODD_NAMES[1:]]
    for name in ("ETag", "LastModified", "ContentType", "ContentLength", "Metadata"):
        assert [head[name] for head in before] == [head[name] for head in after]
    assert [s3.get_object(Bucket="bert", Key=name)["Body"].read().decode() for name in ODD_NAMES[1:]] == ODD_NAMES[1:]
    assert s3.get_object(Bucket="bert", Key="empty")["Body"].read() == b""
    assert refused(lambda: s3.head_object(Bucket="bert", Key=ODD_NAMES[0])) == 404


def test_listing_keeps_its_times_over_a_restart(server: Server, s3: Any) -> None:
    s3.put_object(Bucket="bert", Key="listed", Body=b"1")
    before = s3.list_objects_v2(Bucket="bert", Prefix="listed")["Contents"]
    server.stop()
    server.start()
    assert s3.list_objects_v2(Bucket="bert", Prefix="listed")["Contents"] == before


def test_a_multipart_upload_of_100_mb_survives(server: Server, s3: Any, tmp_path: Path) -> None:
    big = tmp_path / "model.safetensors"
    big.write_bytes(os.urandom(1_000_001) * 100)
    s3.upload_file(str(big), "bert", "model")
    etag = s3.head_object(Bucket="bert", Key="model")["ETag"]
    assert etag.strip('"').endswith("-12")
    server.stop(signal.SIGKILL)
    server.start()
    head = s3.head_object(Bucket="bert", Key="model")
    assert (head["ETag"], head["ContentLength"]) == (etag, big.stat().st_size)
    s3.download_file("bert", "model", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == big.read_bytes()
    part = s3.get_object(Bucket="bert", Key="model", Range="bytes=67108000-67109000")["Body"].read()
    assert part == big.read_bytes()[67108000:67109001]
    s3.copy_object(Bucket="bert", Key="copy", CopySource={"Bucket": "bert", "Key": "model"})
    assert s3.get_object(Bucket="bert", Key="copy")["Body"].read() == big.read_bytes()


def test_a_range_of_an_object_is_that_part_of_it_alone(s3: Any) -> None:
    content = bytes(range(200))
    s3.create_bucket(Bucket="ranges")
    s3.put_object(Bucket="ranges", Key=ODD_NAMES[1], Body=content, ContentType="text/csv")
    etag = s3.head_object(Bucket="ranges", Key=ODD_NAMES[1])["ETag"]
    for asked, first, last in (("0-9", 0, 9), ("190-", 190, 199), ("5-999", 5, 199), ("-3", 197, 199)):
        found = s3.get_object(Bucket="ranges", Key=ODD_NAMES[1], Range=f"bytes={asked}")
        assert found["Body"].read() == content[first : last + 1]
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert (found["ContentRange"], found["ETag"]) == (f"bytes {first}-{last}/200", etag)
        assert (found["ContentLength"], found["ContentType"]) == (last + 1 - first, "text/csv")
    for options, code in ((("200-", etag), "InvalidRange"), (("0-9", '"other"'), "PreconditionFailed")):
        with pytest.raises(ClientError, match=code):
            s3.get_object(Bucket="ranges", Key=ODD_NAMES[1], Range=f"bytes={options[0]}", IfMatch=options[1])


def test_deleted_buckets_and_keys_stay_deleted(server: Server, s3: Any) -> None:
    s3.create_bucket(Bucket="short-lived")
    s3.put_object(Bucket="short-lived", Key="a", Body=b"1")
    s3.put_object(Bucket="short-lived", Key="b", Body=b"2")
    s3.delete_objects(Bucket="short-lived", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    s3.delete_bucket(Bucket="short-lived")
    server.stop(signal.SIGKILL)
    server.start()
    assert "short-lived" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_a_listing_knows_what_was_written_overwritten_and_deleted_over_a_restart(server: Server, s3: Any) -> None:
    s3.create_bucket(Bucket="listed")
    for name in ("b/2", "a", "b", "b/1", "b/10", "b0", "c/1"):
        s3.put_object(Bucket="listed", Key=name, Body=b"")
    s3.put_object(Bucket="listed", Key="b/1", Body=b"again")
    s3.delete_object(Bucket="listed", Key="b/2")
    for _ in range(2):
        listed = s3.list_objects_v2(Bucket="listed", Prefix="b/")["Contents"]
        assert [(item["Key"], item["Size"]) for item in listed] == [("b/1", 5), ("b/10", 0)]
        folders = s3.list_objects_v2(Bucket="listed", Delimiter="/")
        assert [item["Prefix"] for item in folders["CommonPrefixes"]] == ["b/", "c/"]
        assert [item["Key"] for item in folders["Contents"]] == ["a", "b", "b0"]
        server.stop(signal.SIGKILL)
        server.start()


def test_one_of_many_concurrent_creations_wins(s3: Any) -> None:
    def create(number: int) -> bool:
        try:
            s3.put_object(Bucket="bert", Key=f"claim/{number // 16}", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(create, range(160))) == 10


def test_delete_spares_an_overwritten_object(s3: Any) -> None:
    old = s3.put_object(Bucket="bert", Key="upload", Body=b"old")["ETag"]
    new = s3.put_object(Bucket="bert", Key="upload", Body=b"new")["ETag"]
    assert refused(lambda: s3.delete_object(Bucket="bert", Key="upload", IfMatch=old)) == 412
    s3.delete_object(Bucket="bert", Key="upload", IfMatch=new)
    assert refused(lambda: s3.head_object(Bucket="bert", Key="upload")) == 404


def test_an_overwrite_is_never_deleted_by_the_old_etag(s3: Any) -> None:
    """Deletes by the first ETag race overwrites; whichever comes first, the second content must survive."""

    def round_of(number: int) -> bytes:
        key = f"race/{number}"
        etag = s3.put_object(Bucket="bert", Key=key, Body=b"first")["ETag"]
        with ThreadPoolExecutor(2) as pair:
            pair.submit(lambda: s3.delete_object(Bucket="bert", Key=key, IfMatch=etag))
            pair.submit(lambda: s3.put_object(Bucket="bert", Key=key, Body=b"second"))
        content: bytes = s3.get_object(Bucket="bert", Key=key)["Body"].read()
        return content

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(round_of, range(40))) == {b"second"}


def test_copy_checks_the_source_and_the_target(s3: Any) -> None:
    source = {"Bucket": "bert", "Key": "incoming/ü +%.csv"}
    old = s3.put_object(**source, Body=b"old")["ETag"]
    new = s3.put_object(**source, Body=b"new")["ETag"]
    copy = {"Bucket": "bert", "Key": "claims/ü +%.csv", "CopySource": source}
    assert refused(lambda: s3.copy_object(**copy, CopySourceIfMatch=old)) == 412
    assert s3.copy_object(**copy, CopySourceIfMatch=new)["CopyObjectResult"]["ETag"] == new
    assert refused(lambda: s3.copy_object(**copy, IfNoneMatch="*")) == 412
    assert refused(lambda: s3.copy_object(**copy | {"CopySource": {"Bucket": "bert", "Key": "no"}})) == 404


def test_faults_answer_slow_down_until_lifted(server: Server, s3: Any) -> None:
    server.faults.touch()
    try:
        assert refused(lambda: s3.put_object(Bucket="bert", Key="unlucky", Body=b"1")) == 503
    finally:
        server.faults.unlink()
    assert refused(lambda: s3.head_object(Bucket="bert", Key="unlucky")) == 404


@pytest.mark.parametrize("query", ["", "&prefix=n/&max-keys=2", "&delimiter=/", "&fetch-owner=true&encoding-type=url"])
def test_a_listing_is_what_moto_would_write(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, Signature=x"}
    client, bucket = Client(create_backend_app("s3")), f"listed-{abs(hash(query))}"
    client.put(f"/{bucket}", headers=signed)
    for name in [*ODD_NAMES, "n/1", "n/2", "n/3", "x<y>.csv"]:
        client.put(f"/{bucket}/{quote(name)}", data=b"content", headers=signed)
    monkeypatch.setattr(S3Response, "serialized", BaseResponse.serialized)
    by_moto = client.get(f"/{bucket}?list-type=2{query}", headers=signed)
    s3_listing.replace_serializer()
    quick = client.get(f"/{bucket}?list-type=2{query}", headers=signed)
    assert (quick.status, quick.content_type) == (by_moto.status, by_moto.content_type)
    assert xmltodict.parse(quick.data) == xmltodict.parse(by_moto.data)
