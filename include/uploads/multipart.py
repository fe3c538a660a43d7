"""Objects that are too large for one request to S3: begun, put together or given up, and copied, in parts.

A part can be put again, as often as that takes. What is neither put together nor given up is deleted by the bucket's
rule (``terraform/bucket.tf``).
"""

from collections.abc import Iterator
from typing import Any

from include import objects
from include.uploads.open_batches import in_parallel

MOST_PARTS = 10_000
"""S3's own limit of one object."""

ONE_COPY_BYTES = 5 << 30
"""What S3 copies in one request."""

COPIED_PART_BYTES = 1 << 30


def begin(uri: str) -> str:
    """Begins an object that comes in parts; returns S3's id of that, by which each part is put."""
    return str(_call("create_multipart_upload", uri)["UploadId"])


def finish(uri: str, upload_id: str, size: int) -> bool:
    """Makes one object of the parts that have come; False, and nothing changes, unless they are all of ``size`` bytes.

    Raises FileNotFoundError if it was finished or given up before.
    """
    parts = list(_parts(uri, upload_id))
    if [one["PartNumber"] for one in parts] != list(range(1, len(parts) + 1)):
        return False
    if sum(one["Size"] for one in parts) != size:
        return False
    _put_together(uri, upload_id, parts)
    return True


def give_up(uri: str, upload_id: str) -> None:
    """Deletes the parts that have come; nothing happens if it was finished or given up before."""
    try:
        _call("abort_multipart_upload", uri, UploadId=upload_id)
    except FileNotFoundError:
        return


def copy(source: str, target: str) -> str:
    """Copies one object inside S3, and leaves its tags behind; returns what the copy's content is told by, its ETag."""
    bucket, key = objects.place(source)
    place = {"Bucket": bucket, "Key": key}
    size = int(objects.filesystem(source).info(source)["size"])
    if size <= ONE_COPY_BYTES:
        copied = _call("copy_object", target, CopySource=place, TaggingDirective="REPLACE")["CopyObjectResult"]
        return str(copied["ETag"]).strip('"')
    upload_id = begin(target)

    def copy_part(number: int) -> dict[str, Any]:
        first = (number - 1) * COPIED_PART_BYTES
        last = min(first + COPIED_PART_BYTES, size) - 1
        part: dict[str, Any] = _call(
            "upload_part_copy", target, UploadId=upload_id, PartNumber=number, CopySource=place,
            CopySourceRange=f"bytes={first}-{last}",
        )["CopyPartResult"]  # fmt: skip
        return {"PartNumber": number, "ETag": part["ETag"]}

    try:
        parts = in_parallel(copy_part, range(1, -(-size // COPIED_PART_BYTES) + 1))
        return _put_together(target, upload_id, parts)
    except BaseException:
        give_up(target, upload_id)
        raise


def _put_together(uri: str, upload_id: str, parts: list[dict[str, Any]]) -> str:
    named = [{"PartNumber": one["PartNumber"], "ETag": one["ETag"]} for one in parts]
    whole = _call("complete_multipart_upload", uri, UploadId=upload_id, MultipartUpload={"Parts": named})
    return str(whole["ETag"]).strip('"')


def _parts(uri: str, upload_id: str) -> Iterator[dict[str, Any]]:
    """The parts that have come, in order."""
    marker = 0
    while True:
        page = _call("list_parts", uri, UploadId=upload_id, PartNumberMarker=marker)
        yield from page.get("Parts", [])
        if not page.get("IsTruncated"):
            return
        marker = page["NextPartNumberMarker"]


def _call(method: str, uri: str, **given: Any) -> Any:
    bucket, key = objects.place(uri)
    return objects.filesystem(uri).call_s3(method, Bucket=bucket, Key=key, **given)
