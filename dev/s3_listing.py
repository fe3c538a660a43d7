"""moto's answer to ListObjectsV2 ten times as fast: its own serializer takes half a millisecond for each object."""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from moto.core.responses import ActionResult, BaseResponse
from moto.s3.responses import S3Response

ACTION, ROOT = "ListObjectsV2", "ListBucketResult"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_by_moto = BaseResponse.serialized


def replace_serializer() -> None:
    """From now on listings of this process's moto are written by this module."""
    S3Response.serialized = _serialized


def _serialized(response: S3Response, action: ActionResult) -> Any:
    """Status, headers and body of an answer."""
    if response.data.get("Action") != ACTION or not isinstance(action.result, dict):
        return _by_moto(response, action)
    members = "".join(_members(action.result))
    body = f'<?xml version="1.0" encoding="utf-8"?>\n<{ROOT} xmlns="{NAMESPACE}">{members}</{ROOT}>'
    return 200, {"Content-Type": "application/xml", **response.response_headers}, body


def _members(values: Mapping[str, Any]) -> Iterator[str]:
    """Each value as an element; a list as one for each of its items."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"<{name}>{_text(item)}</{name}>"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(_members(value))
    return escape(str(value).lower() if isinstance(value, bool) else str(value))
