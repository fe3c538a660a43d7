"""Addresses by which a browser reads or writes one object of the bucket for a while, past Airflow's webserver."""

from typing import Any

import fsspec

from include import lake, objects

SECONDS = 3_600


def to_read(uri: str, name: str, *, endpoint: str = "") -> str:
    """Where an object can be downloaded under a name; empty if the bucket is no S3, and so has no such addresses.

    ``endpoint`` is S3's as a browser reaches it, if that is another than ours.
    """
    shown = "".join(character for character in name if character.isprintable() and character not in '"\\')
    return _address(uri, endpoint, "get_object", ResponseContentDisposition=f'attachment; filename="{shown}"')


def to_write(uri: str, *, endpoint: str = "") -> str:
    """Where an object of at most 5 GiB can be put; empty as for ``to_read``."""
    return _address(uri, endpoint, "put_object")


def to_write_part(uri: str, upload_id: str, number: int, *, endpoint: str = "") -> str:
    """Where a part of an object can be put, the first of which is number 1."""
    return _address(uri, endpoint, "upload_part", UploadId=upload_id, PartNumber=number)


def origin(endpoint: str = "") -> str:
    """Scheme, host and port of those addresses, as a page's security policy names them; empty if there are none."""
    if endpoint and lake.root().startswith("s3://"):
        return _origin(endpoint)  # addresses at an endpoint of one's own have the bucket in their path
    return _origin(to_read(f"{lake.root()}/x", "x"))


def _origin(address: str) -> str:
    return "/".join(address.split("/", 3)[:3])


def _address(uri: str, endpoint: str, method: str, **more: Any) -> str:
    if not uri.startswith("s3://"):
        return ""
    files = (
        fsspec.filesystem("s3", endpoint_url=endpoint, **objects.S3_OPTIONS) if endpoint else objects.filesystem(uri)
    )
    return str(files.url(uri, expires=SECONDS, client_method=method, **more))
