"""The people who ask the model server, correct it, and label what it gives out; all over HTTP."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from dev.month.texts import Message

AT_ONCE = 25
WITHIN_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """What the server said to a message."""

    message: Message
    prediction_id: str
    label: str
    version: str

    @property
    def right(self) -> bool:
        """Whether it is the label that is right."""
        return self.label == self.message.label


class People:
    """Everybody who writes to the server; they know what they mean."""

    def __init__(self, server: httpx.Client, model: str) -> None:
        self.server, self.model = server, model
        self.truth: dict[str, str] = {}

    def wait_for(self, version: str) -> None:
        """Until the server answers with a version. Raises TimeoutError."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            models = self.server.get("/ready").json().get("models", {})
            if models.get(self.model, {}).get("version") == version:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not answer with version {version}, but says {models}")
            time.sleep(0.2)

    def ask(self, messages: list[Message]) -> list[Answer]:
        """Asks some at a time; what was answered."""
        self.truth |= {one.text: one.label for one in messages}
        found = []
        for start in range(0, len(messages), AT_ONCE):
            some = messages[start : start + AT_ONCE]
            said = self.server.post("/predict", json={"texts": [one.text for one in some]}).raise_for_status().json()
            found += [
                Answer(message, one["id"], one["label"], said["version"])
                for message, one in zip(some, said["predictions"], strict=True)
            ]
        return found

    def correct(self, answers: Iterable[Answer]) -> int:
        """Says of wrong answers what is right; how many there were."""
        wrong = [one for one in answers if not one.right]
        for one in wrong:
            self._say({"prediction_id": one.prediction_id, "label": one.message.label, "who": "a customer"})
        return len(wrong)

    def draw(self, size: int) -> list[dict[str, str]]:
        """Texts of the day that the server has chosen at random, with the labels that are right: to be said later."""
        given = self.server.post("/sample", json={"size": size, "days": 1}).raise_for_status().json()
        return [
            {"prediction_id": one["prediction_id"], "label": self.truth[one["text"]], "sample": given["sample"],
             "who": "the desk"}
            for one in given["texts"]
        ]  # fmt: skip

    def label(self, drawn: Iterable[dict[str, str]]) -> None:
        """Says the labels of texts that were drawn."""
        for one in drawn:
            self._say(one)

    def _say(self, said: dict[str, str]) -> None:
        self.server.post("/feedback", json=said).raise_for_status()
