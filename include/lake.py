"""Where everything lies in S3: one function per kind of path. ``include.objects`` reads and writes there.

Every URI is a full one (``s3://bucket/…``), and a ``file://`` bucket works too.
"""

import hashlib
import re

from include.settings import settings

SPLITS = ("train", "validation")
"""What a dataset is divided into: each is a Parquet file of its folder."""


def root() -> str:
    """The bucket's URI, without a slash at its end."""
    bucket = settings().bucket.rstrip("/")
    return bucket if "://" in bucket else f"s3://{bucket}"


def incoming(name: str = "") -> str:
    """Where users drop files."""
    return f"{root()}/incoming/{name}"


def draft(draft_id: str = "", name: str = "") -> str:
    """A file that somebody looks at in the console before it is uploaded; without arguments the folder of all."""
    return f"{root()}/drafts/{draft_id}/{name}" if draft_id else f"{root()}/drafts/"


def token(digest: str = "") -> str:
    """What is known of a token of the console's API, by the hash of its secret; without one the folder of all."""
    return f"{root()}/tokens/{digest}{'.json' if digest else ''}"


def claims(batch_id: str = "", name: str = "") -> str:
    """Files a run owns; without arguments the folder of all claims."""
    return f"{root()}/claims/{batch_id}/{name}" if batch_id else f"{root()}/claims/"


def claim_index(key: str, etag: str, generation: int = 0) -> str:
    """The object written once per upload, with If-None-Match: whoever writes it owns the upload."""
    digest = hashlib.sha256(f"{key}{etag}".encode()).hexdigest()
    return f"{root()}/claims/index/{digest}{f'.{generation}' if generation else ''}"


def open_batch(batch_id: str = "") -> str:
    """The mark of a batch that has not reached an end; without an id the folder of all of them."""
    return f"{root()}/claims/open/{batch_id}"


def refused(key: str = "", etag: str = "") -> str:
    """What is known of an upload that cannot be copied; without arguments the folder of all of that."""
    return f"{root()}/claims/refused/" + (f"{hashlib.sha256(f'{key}{etag}'.encode()).hexdigest()}.json" if key else "")


def quarantine(batch_id: str, name: str = "") -> str:
    """Files that cannot be read, and rejected rows."""
    return f"{root()}/quarantine/{batch_id}/{name}"


def dataset(dataset_id: str, name: str = "") -> str:
    """A content-addressed snapshot: train.parquet, validation.parquet, manifest.json; and tokens/, a cache."""
    return f"{root()}/datasets/{dataset_id}/{name}"


def staging(run_id: str, name: str = "") -> str:
    """What a run's tasks hand each other: its pinned inputs and its accepted rows."""
    return f"{root()}/staging/{slug(run_id)}/{name}"


def golden(model_name: str, name: str = "") -> str:
    """The rows that judge a model's versions, and what decides which texts are golden."""
    return f"{root()}/golden/{model_name}/{name}"


ASIDE = "aside/"
"""Of ``waiting/``: rows that a challenger has learnt, or was made worse by."""


def waiting(model_name: str, name: str = "") -> str:
    """Rows of labels that are too new: each file is some rows of one upload."""
    return f"{root()}/waiting/{model_name}/{name}"


def predictions(model_name: str, name: str = "") -> str:
    """What models have answered, the server's and the weekly ETL's texts: ``date=YYYY-MM-DD/*.parquet``."""
    return f"{root()}/predictions/{model_name}/{name}"


def feedback(model_name: str, name: str = "") -> str:
    """What people say of answers: ``date=YYYY-MM-DD/*.json``."""
    return f"{root()}/feedback/{model_name}/{name}"


def monitoring(model_name: str, name: str = "") -> str:
    """A model's traffic by day: ``days/<version>/<day>.json``, sums of a version's answers; ``facts/<day>.json``, what
    came on a day in numbers; ``to_label/<day>.csv``, the texts of a drift that are worth most to be labelled, and
    ``unsure/<day>.csv`` those that the champion was least sure about; ``labelled/``, which of them have labels.
    """
    return f"{root()}/monitoring/{model_name}/{name}"


def day_report(model_name: str, day: str, name: str = "") -> str:
    """A day's HTML page and pictures, whichever run wrote them."""
    return f"{root()}/reports/data_validation_dag/{model_name}/{day}/{name}"


def alerts(model_name: str, name: str = "") -> str:
    """What people are to hear of: ``outbox/`` is to be sent, ``sent/`` was."""
    return f"{root()}/alerts/{model_name}/{name}"


def raw(source: str, week: str = "", name: str = "") -> str:
    """Files as the weekly ETL fetched them, unchanged; without a week the folder of all weeks."""
    return f"{root()}/raw/{source}/{week}/{name}" if week else f"{root()}/raw/{source}/"


def sightings(name: str = "") -> str:
    """What was ever said of each text, where the weekly ETL works by Spark: a folder of Parquet per merge."""
    return f"{root()}/sightings/{name}"


def job(job_id: str, name: str = "") -> str:
    """The trainer's only way in and out."""
    return f"{root()}/jobs/{job_id}/{name}"


def model(model_name: str, version: str, name: str = "") -> str:
    """A registered model version's files."""
    return f"{root()}/models/{model_name}/{version}/{name}"


def backup(model_name: str, version: str = "", name: str = "") -> str:
    """A copy of a champion's files, with their hashes; without a version the folder of all of a model's."""
    return f"{root()}/backups/{model_name}/" + (f"{version}/{name}" if version else "")


def dvc(model_name: str, name: str = "") -> str:
    """DVC's remote of a model's datasets, and the lock file that says what was made of what."""
    return f"{root()}/dvc/{model_name}/{name}"


def retraining(model_name: str, decision_id: str) -> str:
    """The object written once per decision to retrain: which run carries it out."""
    return f"{root()}/retrainings/{model_name}/{decision_id}.json"


def report(dag_id: str, run_id: str, name: str = "") -> str:
    """A run's HTML and PNG files."""
    return f"{root()}/reports/{dag_id}/{slug(run_id)}/{name}"


def week_facts(dag_id: str, week: str = "") -> str:
    """What is known of a week of an ETL; without a week the folder of all weeks."""
    return f"{root()}/reports/{dag_id}/weeks/" + (f"{week}.json" if week else "")


def features(dag_id: str, name: str = "") -> str:
    """The other columns of an ETL's rows as numbers, a file a week, and their encoders; without a name the folder."""
    return f"{root()}/features/{dag_id}/{name}"


def slug(run_id: str) -> str:
    """A run id as a folder's name: run ids carry ``:`` and ``+``, which browsers and S3 clients disagree about."""
    return f"{re.sub(r'[^A-Za-z0-9_.=-]', '_', run_id)}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def plain(name: str) -> str:
    """A user's file name as part of a URI: after a ``?``, s3fs looks for a version id."""
    return name.replace("?", "%3F")
