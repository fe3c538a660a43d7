"""What people write to the bank in the month: in English, and from the third week on many of them in German."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from dev.sample_data import CLOSINGS, OPENINGS, TOPICS

TYPOS, MOST_TYPOS = 0.5, 4  # so many of the texts have up to so many: nobody's model is perfect on them

GERMAN_OPENINGS = ("", "hallo, ", "guten Tag, ", "bitte helfen Sie mir: ", "kurze Frage: ", "dringend! ")
GERMAN_CLOSINGS = ("", " danke", " bitte", " was kann ich tun?", " schon zum zweiten Mal", " können Sie das prüfen?")
GERMAN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "card_lost": (
        ("ich habe {} verloren", "{} wurde gestohlen", "ich finde {} nicht mehr", "{} liegt noch im Zug"),
        ("meine Karte", "meine Bankkarte", "die Kreditkarte", "meinen Geldbeutel mit der Karte"),
    ),
    "card_not_working": (
        ("{} wird abgelehnt", "{} funktioniert nicht", "der Laden nimmt {} nicht an", "der Automat hat {} behalten"),
        ("meine Karte", "das kontaktlose Bezahlen", "die neue Karte", "meine PIN"),
    ),
    "refund_request": (
        ("ich will mein Geld für {} zurück", "bitte erstatten Sie {}", "{} ist storniert, wo bleibt die Erstattung"),
        ("die Bestellung", "meinen letzten Einkauf", "das Abo", "die doppelte Abbuchung"),
    ),
    "delivery_late": (
        ("{} ist nicht angekommen", "wo bleibt {}", "{} sollte letzte Woche kommen", "ich warte noch auf {}"),
        ("mein Paket", "meine Bestellung", "die Ersatzkarte", "die Lieferung"),
    ),
    "account_access": (
        ("ich komme nicht in {}", "{} sagt, das Passwort sei falsch", "wie setze ich {} zurück", "{} ist gesperrt"),
        ("mein Konto", "die App", "das Onlinebanking", "mein Profil"),
    ),
    "transfer_failed": (
        ("{} ging nicht durch", "{} hängt noch", "{} ging an die falsche Person", "{} kam zurück"),
        ("meine Überweisung", "die Miete", "der Dauerauftrag", "meine Aufladung"),
    ),
    "fees_and_rates": (
        ("warum kostet {} etwas", "was kostet {}", "die Gebühr für {} ist zu hoch", "welcher Kurs gilt für {}"),
        ("Abheben im Ausland", "eine Überweisung", "der Umtausch", "das Monatspaket"),
    ),
}


@dataclass(frozen=True)
class Message:
    """A text, and the label that is right."""

    text: str
    label: str


class Messages:
    """All that can be written, each text once; the same for the same seed."""

    def __init__(self, seed: int = 14) -> None:
        self._dice = random.Random(seed)
        self._english = self._shuffled(OPENINGS, TOPICS, CLOSINGS)
        self._german = self._shuffled(GERMAN_OPENINGS, GERMAN, GERMAN_CLOSINGS)
        self._told: set[str] = set()

    def draw(self, count: int, *, german: float = 0.0, weights: Mapping[str, float] | None = None) -> list[Message]:
        """Messages that nobody has written yet.

        Args:
            count: of them.
            german: their share.
            weights: of labels, by how much more often they come than others.
        """
        labels = sorted(TOPICS)
        chances = [(weights or {}).get(label, 1.0) for label in labels]
        found = []
        for label in self._dice.choices(labels, chances, k=count):
            pool = self._german if self._dice.random() < german else self._english
            found.append(self._next(pool[label], label))
        return found

    def _next(self, pool: list[str], label: str) -> Message:
        while True:
            text = pool.pop(0)
            pool.append(text)  # comes again, with another typo, when all have come
            written = self._mistyped(text) if self._dice.random() < TYPOS or text in self._told else text
            if written not in self._told:
                self._told.add(written)
                return Message(written, label)

    def _mistyped(self, text: str) -> str:
        for _ in range(self._dice.randint(1, MOST_TYPOS)):
            at = self._dice.randrange(1, len(text) - 1)
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return text

    def _shuffled(
        self,
        openings: tuple[str, ...],
        topics: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
        closings: tuple[str, ...],
    ) -> dict[str, list[str]]:
        found = {label: list(_texts(openings, *of_label, closings)) for label, of_label in topics.items()}
        for texts in found.values():
            self._dice.shuffle(texts)
        return found


def _texts(
    openings: tuple[str, ...], sentences: tuple[str, ...], things: tuple[str, ...], closings: tuple[str, ...]
) -> Iterator[str]:
    for opening, sentence, thing, closing in product(openings, sentences, things, closings):
        yield f"{opening}{sentence.format(thing)}{closing}"
