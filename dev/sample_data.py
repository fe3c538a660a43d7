"""The seven files of the demo: made up, or cut from the user's own labelled file."""

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pandas as pd

from include.datasets.checks import check_rows
from include.datasets.reading import read_rows

SEED = 20
MADE_UP_ROWS = 1_400
UNKNOWN_ROWS = 6
MISLABELLED = 0.03  # people err: nobody's labels are perfect, and so no model should be
FEWEST_ROWS = 1_000
FEWEST_LABELS, FEWEST_OF_LABEL = 4, 30  # with fewer, no label is kept back to be a new one
SWAPPED_LABELS, SWAPPED_ROWS = 0.25, 2 / 3  # labels with so much of all rows have so many of theirs swapped
SHARES = (0.6, 0.3)  # of the other rows in the first and second good file; the rest goes into the one with bad rows

OPENINGS = (
    "",
    "hi, ",
    "hello, ",
    "please help: ",
    "good morning, ",
    "quick question: ",
    "urgent! ",
    "sorry to bother, ",
)
CLOSINGS = ("", " thanks", " please", " what can I do?", " any idea?", " it's the second time", " can you check?")

# A few sentences stand in more than one class's way of talking, as they do in real messages.
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "card_lost": (
        ("I lost my {}", "my {} was stolen", "I cannot find my {}", "I left my {} on the train", "my {} is gone"),
        ("card", "debit card", "bank card", "credit card", "wallet with the card"),
    ),
    "card_not_working": (
        ("my {} is declined", "the {} does not work", "the shop refused my {}", "the machine swallowed my {}"),
        ("card", "debit card", "contactless payment", "new card", "PIN"),
    ),
    "refund_request": (
        ("I want my money back for {}", "please refund {}", "I returned {} and got no refund", "cancel and repay {}"),
        ("the order", "my last purchase", "the wrong item", "the subscription", "a double charge"),
    ),
    "delivery_late": (
        ("{} has not arrived", "where is {}", "{} should have come last week", "still waiting for {}"),
        ("my parcel", "my order", "the new card", "the replacement", "my package"),
    ),
    "account_access": (
        ("I cannot log in to {}", "{} says my password is wrong", "I am locked out of {}", "how do I reset {}"),
        ("my account", "the app", "online banking", "the website", "my profile"),
    ),
    "transfer_failed": (
        ("{} did not go through", "{} is still pending", "{} was sent to the wrong person", "{} bounced"),
        ("my transfer", "the payment to my landlord", "a bank transfer", "the standing order", "my top-up"),
    ),
    "fees_and_rates": (
        ("why was I charged for {}", "what does {} cost", "the fee for {} is too high", "which rate applies to {}"),
        ("withdrawing cash abroad", "a transfer", "the exchange", "a new card", "the monthly plan"),
    ),
}


@dataclass(frozen=True)
class Upload:
    """A file of the demo: its name below incoming/, what is in it, and what was put in to be rejected or to wait."""

    story: str
    name: str
    content: bytes
    spoilt: dict[str, int] = field(default_factory=dict)
    waiting: int = 0

    @property
    def labels(self) -> set[str]:
        """The labels of a CSV file's rows, whose last column they are."""
        return {cells[-1] for cells in list(csv.reader(io.StringIO(self.content.decode())))[1:]}

    @property
    def rows(self) -> int:
        """Rows, counted from the content itself; a file that is no table counts as one."""
        return count_rows(self.name, self.content)


def count_rows(name: str, content: bytes) -> int:
    """The rows of a file by its own format, without a look at what they say."""
    if content.startswith(b"%PDF"):
        return 1
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return int(pq.ParquetFile(io.BytesIO(content)).metadata.num_rows)
    if name.endswith(".jsonl"):
        return sum(1 for line in content.split(b"\n") if line.strip())
    text = content.decode("latin-1")
    return sum(1 for cells in csv.reader(io.StringIO(text, newline="")) if cells) - 1


def messages(n: int, seed: int = SEED) -> pd.DataFrame:
    """n different made-up messages to a bank, columns text and label; the same for the same seed."""
    everything = list(_everything())
    if n > len(everything):
        raise ValueError(f"there are {len(everything)} different messages, and {n} were asked for")
    rng = random.Random(seed)
    frame = pd.DataFrame(rng.sample(everything, n), columns=["text", "label"])
    frame["label"] = [rng.choice(list(TOPICS)) if rng.random() < MISLABELLED else label for label in frame["label"]]
    return frame.drop_duplicates("text", ignore_index=True)


def labelled_file(path: Path, text_column: str = "", label_column: str = "") -> pd.DataFrame:
    """A user's labelled file, columns text and label.

    Raises FileNotFoundError, UnreadableFileError if it is no table of labelled texts, and ValueError if it is too small
    for the stories.
    """
    rows = read_rows(path.read_bytes(), path.name, text_column, label_column)
    rows = check_rows(rows, allowed_labels=None, max_characters=20_000, min_rows_per_label=1)
    rows = rows[rows["rule"] == ""]
    if len(rows) < FEWEST_ROWS:
        raise ValueError(f"{path} has {len(rows)} different labelled texts; the demo's seven files need {FEWEST_ROWS}")
    return rows[["text", "label"]].astype(str).reset_index(drop=True)


def uploads(rows: pd.DataFrame, text_column: str = "", label_column: str = "") -> list[Upload]:
    """The files, in the order of their stories. ``rows`` has the columns text and label.

    The last one is of a label that no other has; without enough labels there is none.
    """
    names = {"text": text_column or "text", "label": label_column or "label"}
    shuffled = rows.sample(frac=1, random_state=SEED, ignore_index=True)
    news = _kept_back(shuffled)
    shuffled = shuffled.drop(news.index)
    swapped = _swapped(shuffled)
    shuffled = shuffled.drop(swapped.index)
    first, second = (int(len(shuffled) * share) for share in (SHARES[0], sum(SHARES)))
    good, more, rest = shuffled[:first], shuffled[first:second], shuffled[second:]
    known = shuffled[:second]
    wrong = known.assign(label=known["label"].sample(frac=1, random_state=SEED).to_numpy())
    bad, spoilt = _spoil(rest.rename(columns=names), names)
    uploads = [
        Upload("good file", "team a/good ü+1.csv", good.rename(columns=names).to_csv(index=False).encode()),
        Upload("second good file", "second.jsonl", _jsonl(more.rename(columns=names))),
        Upload("bad rows", "bad rows.csv", bad, spoilt, UNKNOWN_ROWS),
        Upload("no table", "report 100%.csv", b"%PDF-1.7\n" + bytes(range(256)) * 40, {"unreadable_file": 1}),
        Upload("swapped labels", "swapped.csv", swapped.rename(columns=names).to_csv(index=False).encode()),
        Upload("shuffled labels", "shuffled.parquet", _parquet(wrong.rename(columns=names))),
        Upload("new label", "new label.csv", news.rename(columns=names).to_csv(index=False).encode()),
    ]
    return uploads if len(news) else uploads[:-1]


def _kept_back(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows of the rarest label that has enough of them to be a new one; none if there are too few labels."""
    counts = rows["label"].value_counts()
    enough = counts[counts >= FEWEST_OF_LABEL]
    return rows[rows["label"] == enough.index[-1]] if len(enough) >= FEWEST_LABELS else rows.head(0)


def _swapped(rows: pd.DataFrame) -> pd.DataFrame:
    """Most rows of the most frequent labels, each with the next one's label: what a model learns from them is wrong."""
    counts = rows["label"].value_counts()
    wanted = max(int((counts.cumsum() < SWAPPED_LABELS * len(rows)).sum()) + 1, 2)
    labels = list(counts.index[:wanted])
    some = rows[rows["label"].isin(labels)].groupby("label").sample(frac=SWAPPED_ROWS, random_state=SEED)
    return some.assign(label=some["label"].map(dict(zip(labels, labels[1:] + labels[:1], strict=True))))


def _everything() -> Iterator[tuple[str, str]]:
    for label, (sentences, things) in TOPICS.items():
        for opening, sentence, thing, closing in product(OPENINGS, sentences, things, CLOSINGS):
            yield f"{opening}{sentence.format(thing)}{closing}", label


def _spoil(rows: pd.DataFrame, names: dict[str, str]) -> tuple[bytes, dict[str, int]]:
    """A CSV file of good rows with bad ones among them, and how many of which rule."""
    text, label = names["text"], names["label"]
    labels = sorted(rows[label].unique())
    some, other = labels[0], labels[-1]
    copied = rows.iloc[:5]
    bad = {
        "text_empty": [("", some), ("   ", some), ("\t", other)],
        "label_missing": [(f"nobody labelled this one, number {at}", "") for at in range(4)],
        "duplicate": list(zip(copied[text], copied[label], strict=True)),
        "contradictory_label": [(f"both ways, number {at}", chosen) for at in range(3) for chosen in (some, other)],
        "text_too_long": [("all work and no play " * 50_000, some)],
    }
    unknown = [(f"a label that nobody knows, number {at}", "déjà inconnu") for at in range(UNKNOWN_ROWS)]
    spoilt = pd.DataFrame([pair for pairs in (unknown, *bad.values()) for pair in pairs], columns=[text, label])
    content = pd.concat([rows, spoilt], ignore_index=True)[[text, label]].to_csv(index=False).encode()
    # Written by a program that thinks in Latin-1: not valid UTF-8, which the file is by a label above.
    latin = f"où est ma carte,{some}\nmeine Überweisung,{some}\n".encode("latin-1")
    return content + latin, {rule: len(pairs) for rule, pairs in bad.items()} | {"wrong_encoding": 2}


def _jsonl(rows: pd.DataFrame) -> bytes:
    return str(rows.to_json(orient="records", lines=True, force_ascii=False)).encode()


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.reset_index(drop=True).to_parquet(buffer, index=False)
    return buffer.getvalue()
