"""A REST API's records, page by page."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from include.ingestion.sources import Paging

MOST_PAGES = 100_000
TIMEOUT_SECONDS = (20, 120)


class ApiError(RuntimeError):
    """An API answers what cannot be used; the message says what, and at which address."""


def records(
    session: requests.Session,
    url: str,
    *,
    params: Mapping[str, str],
    records: str = "",
    paging: Paging | None = None,
) -> Iterator[dict[str, Any]]:
    """Every record of every page. Raises ApiError, and requests' own errors."""
    asked: dict[str, Any] = dict(params)
    first, before, visited = urlsplit(url), None, set()
    if paging is not None and paging.size_parameter:
        asked[paging.size_parameter] = paging.size
    if paging is not None and paging.by == "page":
        asked[paging.field] = paging.first
    if paging is not None and paging.by == "offset":
        asked[paging.field] = 0
    for _ in range(MOST_PAGES):
        answer = session.get(url, params=asked, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        content = _json(answer)
        found = _at(content, records, answer.url)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            what = repr(records) if records else "the answer"
            raise ApiError(f"{answer.url}: {what} is no list of JSON objects; say in 'records' where that is")
        if found and found == before and paging is not None and paging.by in ("page", "offset"):
            raise ApiError(f"{answer.url} answers the same page as before: does it know a parameter {paging.field!r}?")
        before = found
        yield from found
        following = _following(paging, answer, content, url, asked, len(found))
        if following is None:
            return
        url, asked = following
        if first.scheme == "https":  # an API behind a proxy may not know that it is, and credentials go with it
            url = urlsplit(url)._replace(scheme="https").geturl()
        if urlsplit(url).netloc != first.netloc:  # the credentials are for the first
            raise ApiError(f"{answer.url} names its next page on another host, {urlsplit(url).netloc}; not followed")
        step = (url, tuple(sorted((name, str(value)) for name, value in asked.items())))
        if step in visited:
            raise ApiError(f"{answer.url} names a page that was read already as its next")
        visited.add(step)
    raise ApiError(f"{url} has more than {MOST_PAGES:,} pages")


def _following(
    paging: Paging | None, answer: requests.Response, content: Any, url: str, asked: dict[str, Any], found: int
) -> tuple[str, dict[str, Any]] | None:
    """The address and parameters of the next page; None after the last."""
    if paging is None:
        return None
    if paging.by == "link_header":
        link = answer.links.get("next", {}).get("url")
        return (urljoin(answer.url, link), {}) if link else None
    if paging.by == "next_link":
        link = _at(content, paging.field, answer.url, missing_ok=True)
        return (urljoin(answer.url, link), {}) if link else None
    if paging.by == "cursor":
        cursor = _at(content, paging.field, answer.url, missing_ok=True)
        return (url, asked | {paging.parameter: cursor}) if cursor else None
    if not found:
        return None
    step = 1 if paging.by == "page" else found
    return url, asked | {paging.field: asked[paging.field] + step}


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json(parse_float=str)  # 1.10 is no 1.1
    except ValueError as error:
        raise ApiError(f"{answer.url} answers {answer.headers.get('content-type', 'something')} and no JSON") from error


def _at(content: Any, dotted: str, url: str, *, missing_ok: bool = False) -> Any:
    for part in filter(None, dotted.split(".")):
        if not isinstance(content, dict) or part not in content:
            if missing_ok:
                return None
            raise ApiError(f"{url}: the answer has no {dotted!r}")
        content = content[part]
    return content
