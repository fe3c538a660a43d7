"""The model server's scorer behind LitServe's HTTP and batches: ``python -m dev.bench.litserve_side <folder> <port>``.

A module of its own, since LitServe's worker process imports what it runs.
"""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]

BATCH = 16  # requests: as many as callers where it is compared
WAIT = 0.005  # seconds for a batch to fill


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Texts in, labels out, as MLflow's protocol has them."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT, api_path="/invocations")
        self._folder = folder

    def setup(self, device: str) -> None:
        """LitServe's own: in its worker process."""
        from include.training.scoring import Scorer

        self._scorer = Scorer(self._folder, compiled=True)

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """The texts of a request."""
        texts: list[str] = request["inputs"]
        return texts

    def predict(self, requests: list[list[str]]) -> list[list[str]]:
        """The labels of each request's texts."""
        texts = [text for request in requests for text in request]
        found = self._scorer.probabilities(self._scorer.tokenize(texts)).argmax(-1).tolist()
        labels = iter([self._scorer.labels[index] for index in found])
        return [[next(labels) for _ in request] for request in requests]

    def batch(self, requests: list[list[str]]) -> list[list[str]]:
        """As they are: LitServe would make arrays of them."""
        return requests

    def unbatch(self, answers: list[list[str]]) -> list[list[str]]:
        """As they are."""
        return answers

    def encode_response(self, answer: list[str]) -> dict[str, Any]:
        """The body of an answer."""
        return {"predictions": answer}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(sys.argv[1]), accelerator="cpu", healthcheck_path="/ping")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
