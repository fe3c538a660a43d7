"""Which texts no rule of ``preprocess_data`` can touch, told of many at a time; the others are looked at one by one."""
# Only imported inside tasks.

import pyarrow as pa
import pyarrow.compute as pc

from include.ingestion.sources import Quality

_THREE_WORDS = r"[A-Za-z0-9]\S*\s+\S*[A-Za-z0-9]\S*\s+\S*[A-Za-z0-9]"
"""No placeholder has as many."""

_MAY_BE_AUTOMATIC = (
    r"(?i)^[\s\x0b\x1c-\x1f]*(automatic reply|auto-?reply|out of office|abwesenheitsnotiz|automatische antwort|"
    r"i am (currently )?out of|mail delivery failed|undeliverable|delivery status notification|do not reply to this)"
)


class Screen:
    """Tells texts that stay as they are, and stay in, whichever of the rules are on."""

    def __init__(self, quality: Quality, shortest: int, longest: int) -> None:
        """``shortest`` and ``longest`` are usual lengths in characters, 0 if none are known."""
        self.quality = quality
        self.shortest, self.longest = (shortest, longest) if quality.length else (0, 0)
        self.one_by_one = quality.near_duplicates or bool(quality.languages)

    def untouched(self, texts: pa.Array) -> pa.Array:
        """(n,) texts in, (n,) booleans out: whether ``Cleaner`` would hand a text back as it is."""
        if self.one_by_one:
            return pa.repeat(False, len(texts))
        plain = pc.and_(pc.string_is_ascii(texts), pc.match_substring_regex(texts, _THREE_WORDS))
        if self.quality.boilerplate:
            plain = pc.and_(plain, pc.invert(pc.match_substring(texts, "\n")))
            plain = pc.and_(plain, pc.invert(pc.match_substring_regex(texts, _MAY_BE_AUTOMATIC)))
        if self.longest:
            lengths = pc.utf8_length(texts)
            usual = pc.and_(pc.greater_equal(lengths, self.shortest), pc.less_equal(lengths, self.longest))
            plain = pc.and_(plain, usual)
        return plain
