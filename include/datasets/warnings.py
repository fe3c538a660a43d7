"""What somebody should look at though the rows are used: many rejections, odd labels, classes that nobody can judge."""

from collections import Counter
from collections.abc import Mapping
from statistics import median

from include.datasets.judging import NEW_LABEL, Numbers, Rows
from include.datasets.labels import doubtful, lookalikes

MOST_REJECTED = 0.2  # of a file's rows
FEWEST_OF_MEDIAN = 0.1  # of the median class's rows
FEWEST_ROWS = 10  # of a file, before its labels are counted against them
SHOWN = 8
SHOWN_OF_FILE = 5


def of_file(rows: int, labels: int, by_rule: Mapping[str, int]) -> list[str]:
    """About one file: how many rows it has, how many different labels, and how many of them were rejected why."""
    found = []
    rejected = sum(by_rule.values())
    if rejected > MOST_REJECTED * rows:
        rule, most = max(by_rule.items(), key=lambda item: item[1])
        found.append(f"{rejected:,} of {rows:,} rows were rejected, {most:,} of them as {rule}")
    if rows >= FEWEST_ROWS and 2 * labels > rows:
        found.append(f"{labels:,} different labels in {rows:,} rows: is this the column with the labels?")
    return found


def of_labels(
    used: Mapping[str, int], trained: Mapping[str, int], golden: Mapping[str, float], fewest_golden: int
) -> list[str]:
    """About all labels together: new rows by label, rows trained with already, and golden rows there are or will be."""
    rows = {label: used.get(label, 0) + trained.get(label, 0) for label in used.keys() | trained.keys()}
    found = [
        f'"{one}" and "{other}" look alike ({rows.get(one, 0):,} and {rows.get(other, 0):,} rows): are they one label? '
        "BERT_LABEL_MAPPING merges them"
        for one, other in lookalikes(rows)
        if one in used or other in used
    ]
    found += doubtful(used)
    middle = median(rows.values()) if rows else 0
    rare = sorted(label for label, count in rows.items() if count < FEWEST_OF_MEDIAN * middle)
    if rare:
        found.append(f"{_named(rare, len(rows))} under a tenth of the median class's {middle:,.0f} rows")
    unjudged = sorted(label for label in rows if golden.get(label, 0) < fewest_golden)
    if unjudged:
        limit = f"fewer than {fewest_golden} golden rows (BERT_MIN_CLASS_ROWS)"
        found.append(f"{_named(unjudged, len(rows))} {limit}, too few for a judgement of its own")
    return found


def of_renamed(rows: Rows, file: int) -> list[str]:
    """A sentence for each old name of a label that a file, named by its number, has."""
    found = rows.renamed.get(file, Counter[tuple[str, str]]())
    return [f"{n:,} row{'' if n == 1 else 's'}: {old} → {new}" for (old, new), n in found.most_common(SHOWN_OF_FILE)]


def of_new_labels(rows: Rows, mine: Numbers) -> list[str]:
    """A sentence for each label that is too new; ``mine`` (n,) are a file's rows."""
    places = (mine & rows.broken_by(NEW_LABEL)).nonzero()[0].tolist()
    found = Counter(rows.broken[place][1] for place in places)
    how = "(BERT_NEW_LABEL_ROWS, or name it in BERT_ADMITTED_LABELS)"
    return [f"{n} rows wait: {reason} {how}" for reason, n in found.most_common(SHOWN_OF_FILE)]


def _named(labels: list[str], total: int) -> str:
    shown = ", ".join(f'"{label[:40]}"' for label in labels[:SHOWN])
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"{len(labels)} of {total} classes, {shown}{more}, {'has' if len(labels) == 1 else 'have'}"
