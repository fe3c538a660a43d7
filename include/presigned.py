"""Addresses by which a browser reads or writes one object of the bucket for a while, past Airflow's webserver."""

from typing import Any

import fsspec

from include import lake

SECONDS = 3_600
MOST_BYTES = 5 << 30
"""What S3 takes in one request."""


def to_read(uri: str, name: str, *, endpoint: str = "") -> str:
    """Where an object can be downloaded under a name; empty if the bucket is no S3, and so has no such addresses.

    ``endpoint`` is S3's as a browser reaches it, if that is another than ours.
    """
    shown = "".join(character for character in name if character.isprintable() and character not in '"\\')
    return _address(uri, endpoint, "get_object", ResponseContentDisposition=f'attachment; filename="{shown}"')


def to_write(uri: str, *, endpoint: str = "") -> str:
    """Where an object of at most ``MOST_BYTES`` can be put; empty as for ``to_read``."""
    return _address(uri, endpoint, "put_object")


def origin(endpoint: str = "") -> str:
    """Scheme, host and port of those addresses, as a page's security policy names them; empty if there are none."""
    address = to_read(f"{lake.root()}/x", "x", endpoint=endpoint)
    return "/".join(address.split("/", 3)[:3])


def _address(uri: str, endpoint: str, method: str, **more: Any) -> str:
    if not uri.startswith("s3://"):
        return ""
    # Without a version, botocore signs addresses in a way that newer regions of AWS refuse.
    files = fsspec.filesystem(
        "s3", endpoint_url=endpoint or None, config_kwargs={"signature_version": "s3v4"}, use_listings_cache=False
    )
    return str(files.url(uri, expires=SECONDS, client_method=method, **more))
