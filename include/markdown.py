"""Anybody's words in Markdown: file names, labels and reasons are shown as they are."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # a database takes no NUL
_ESCAPED = re.compile(r"\\([\\`*\[\]<>~&|_])")
# Within a word an underscore means nothing, and names of settings and rules are to stay readable.
_MARKUP = re.compile(r"[\\`*\[\]<>~&|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def shown(markdown: str) -> str:
    """A line of ours where no Markdown is read: nothing is bold, and anybody's words are as they were."""
    return _ESCAPED.sub(r"\1", markdown.replace("**", ""))


def plain(text: str) -> str:
    """A text that is shown as it is, on one line, in characters that a database takes."""
    text = text.encode("utf-8", "backslashreplace").decode()  # the name of a file need not be UTF-8
    return _MARKUP.sub(r"\\\g<0>", " ".join(_CONTROL.sub(" ", text).split()))
