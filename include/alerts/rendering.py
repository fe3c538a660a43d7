"""Alerts as messages: Slack's blocks and a page of mail. Nothing in a title, a text or a link is taken for markup."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from include.alerts.outbox import Alert, cut

Address = Callable[[str], str]
"""What a link's target is for a reader: an address of the webserver for ``airflow:…``, others as they are."""

SHOWN_IN_SLACK = 15  # of many, in one message; Slack takes 50 blocks
SHOWN_IN_MAIL = 100
LONGEST_HEADER = 140  # characters; Slack takes 150
LONGEST_SECTION = 2500  # escaping makes it longer
MOST_CHARACTERS = 3000  # that Slack takes in a block
LONGEST_LINE = 300
TEMPLATE = Path(__file__).with_name("mail.html.jinja")


def slack(model_name: str, alerts: Sequence[Alert], address: Address) -> dict[str, Any]:
    """A webhook's body."""
    heading = _heading(alerts)
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _escaped(heading, LONGEST_HEADER, LONGEST_HEADER), "emoji": False},
        }
    ]
    if len(alerts) == 1:
        blocks += _section(alerts[0].text, LONGEST_SECTION)
        blocks.append(_context([_kind(alerts[0]), _escaped(model_name), *_links(alerts[0], address)]))
    else:
        for alert in alerts[:SHOWN_IN_SLACK]:
            blocks += _section(f"{_kind(alert)}: {alert.title}", LONGEST_LINE)
            if links := _links(alert, address):
                blocks.append(_context(links))
        if left_out := _left_out(alerts, SHOWN_IN_SLACK):
            blocks += _section(left_out, LONGEST_LINE)
        blocks.append(_context([_escaped(model_name)]))
    text = _escaped(f"{model_name}: {heading}", LONGEST_HEADER)
    return {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def mail(model_name: str, alerts: Sequence[Alert], address: Address) -> tuple[str, str]:
    """A mail's subject, on one line, and its HTML."""
    from jinja2 import Environment

    heading = _heading(alerts)
    shown = [
        {
            "title": alert.title,
            "kind": _kind(alert),
            "text": alert.text if len(alerts) == 1 else cut(alert.text, LONGEST_LINE),
            "links": [(name, address(target)) for name, target in alert.links.items()],
        }
        for alert in alerts[:SHOWN_IN_MAIL]
    ]
    page = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    html = page.render(
        model_name=model_name, heading=heading, alerts=shown, left_out=_left_out(alerts, SHOWN_IN_MAIL)
    )  # fmt: skip
    return " ".join(f"[{model_name}] {heading}".split()), html


def _heading(alerts: Sequence[Alert]) -> str:
    """What happened, on one line."""
    if len(alerts) == 1:
        return _one_line(alerts[0].title)
    counts = ", ".join(f"{count} {_word(kind)}" for kind, count in Counter(one.kind for one in alerts).most_common())
    return f"{len(alerts)} alerts: {counts}"


def _left_out(alerts: Sequence[Alert], shown: int) -> str:
    more = len(alerts) - shown
    return f"and {more} more: make alerts shows all" if more > 0 else ""


def _kind(alert: Alert) -> str:
    return f"{_word(alert.kind)}, urgent" if alert.is_urgent else _word(alert.kind)


def _word(kind: str) -> str:
    return kind.replace("_", " ")


def _section(text: str, longest: int) -> list[dict[str, Any]]:
    shown = _escaped(text, longest)
    return [{"type": "section", "text": {"type": "plain_text", "text": shown, "emoji": False}}] if shown.strip() else []


def _context(parts: Sequence[str]) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(parts)}]}


def _links(alert: Alert, address: Address) -> list[str]:
    """Links as Slack writes them; what no browser opens is shown as it is."""
    found = []
    for name, target in alert.links.items():
        url = address(target)
        if url.startswith(("http://", "https://")):
            url = url.replace("|", "%7C").replace(">", "%3E").replace("<", "%3C").replace("&", "&amp;")
            found.append(f"<{url}|{_escaped(name)}>")
        else:
            found.append(f"{_escaped(name)}: `{_escaped(url).replace('`', '')}`")
    return found


def _escaped(text: str, longest: int = LONGEST_LINE, most: int = MOST_CHARACTERS) -> str:
    """A text in which Slack sees no mention, no link and no entity; cut before, so that no entity is."""
    escaped = cut(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Of a text that is nearly all such characters, a fifth is short enough.
    return escaped if len(escaped) <= most else _escaped(text, longest // 5)


def _one_line(text: str) -> str:
    return " ".join(text.split())
