"""The typed form of a training run: what the UI's form shows and what ``conf`` of the REST API is checked against."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include import lake, renaming
from include.settings import settings
from include.training.base_models import allowed, refusal


def training_params() -> dict[str, Param]:
    """Params of every DAG that trains; their defaults are the settings."""
    config = settings()
    return {
        "dataset_uri": Param(
            None,
            type=["null", "string"],
            pattern=r"^s3://[^/]+/.+",
            title="Dataset URI",
            description="A labelled file, a folder ending in / or a pattern with *. Empty: what was uploaded and not "
            "used yet; if there is nothing, the champion's own dataset is trained on again.",
        ),
        "text_column": _column("Text column", config.text_column, "BERT_TEXT_COLUMN", "text, message, review …"),
        "label_column": _column("Label column", config.label_column, "BERT_LABEL_COLUMN", "label, category, intent …"),
        "label_mapping": Param(
            config.label_mapping or None,
            type=["null", "object"],
            additionalProperties={"type": "string", "minLength": 1},
            title="Label mapping",
            description="Labels that were renamed or merged, old and new names: "
            f"{renaming.EXAMPLE}. The champion's rows, the golden rows and new ones with an old name count as the "
            "new one, for good once this run's model is promoted. The default is the setting BERT_LABEL_MAPPING.",
        ),
        "base_model": Param(
            config.base_model,
            type="string",
            minLength=1,
            title="Base model",
            description=f"{allowed()[0].upper()}{allowed()[1:]}",
        ),
        "epochs": Param(config.epochs, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(
            config.learning_rate, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"
        ),
        "batch_size": Param(config.batch_size, type="integer", minimum=1, maximum=4096, title="Texts per batch"),
        "max_length": Param(
            config.max_length, type="integer", minimum=8, maximum=8192, title="Tokens per text, at most"
        ),
        "seed": Param(config.seed, type="integer", minimum=0, maximum=2**32 - 1, title="Seed"),
        "promotion": Param(
            config.promotion,
            type="string",
            enum=["manual"] if config.promotion == "manual" else ["automatic", "manual"],
            title="Promotion",
            description="manual: if it passes the gates, the model waits for a person (DAG decide_challenger). The "
            "default is the setting BERT_PROMOTION, and where that is manual a run is, too.",
        ),
    }


def etl_params() -> dict[str, Param]:
    """Params of ``weekly_etl``: those of training that do not say which files are read, and how."""
    params = training_params()
    return {name: params[name] for name in params if name not in ("dataset_uri", "text_column", "label_column")}


def retraining_params() -> dict[str, Param]:
    """Params of ``model_retraining_dag``: why it is started, and what is trained with."""
    return {
        "reason": Param(None, type=["null", "string"], title="Reason", description="Why; kept in the run's report"),
        "decision_id": Param(
            None,
            type=["null", "string"],
            pattern=r"^[A-Za-z0-9_.:-]{1,100}$",
            title="Decision",
            description="The ledger's entry that this run carries out. A second run of the same one trains nothing.",
        ),
        **etl_params(),
    }


def _column(title: str, default: str, setting: str, usual: str) -> Param:
    return Param(
        default or None,
        type=["null", "string"],
        title=title,
        description=f"Its name in the files of this run. Empty: found by the usual names ({usual}). The default is the "
        f"setting {setting}.",
    )


def misspelt(conf: Iterable[str], params: Collection[str]) -> str:
    """What is wrong with the names in a run's ``conf``, and which were meant; empty if each is a parameter.

    Airflow checks the values of parameters, and lets names through that are none.
    """
    unknown = [name for name in conf if name not in params]
    hints = {name: difflib.get_close_matches(name.lower(), params, n=1) for name in unknown}
    shown = [f"{name!r}{f' (did you mean {hint[0]!r}?)' if hint else ''}" for name, hint in hints.items()]
    return f"conf names what is no parameter: {', '.join(shown)}. There are: {', '.join(params)}." if unknown else ""


def refuse_wrong_request(context: Any) -> None:
    """Before every task of every DAG: ends a run that was told what it cannot do, with a sentence and no second try.

    Raises AirflowFailException for a name in ``conf`` that is no parameter, for a mapping of labels that makes no
    sense, and for a base model that is not allowed.
    """
    params = context["params"]
    known = context["dag"].params
    wrong = misspelt(context["dag_run"].conf or {}, known) if known else ""
    wrong = wrong or _mapping_fault(params.get("label_mapping") or {})
    if wrong := wrong or (refusal(params["base_model"]) if "base_model" in params else ""):
        raise AirflowFailException(wrong)


def _mapping_fault(mapping: dict[str, str]) -> str:
    """What is wrong with a run's mapping of labels; empty if nothing is."""
    try:
        renaming.check_allowed(renaming.check(mapping), settings().labels)
    except ValueError as error:
        return f"label_mapping: {error}"
    return ""


def data_bucket(dataset_uri: str | None) -> str:
    """The bucket in which a run waits for its data."""
    return _awaited(dataset_uri).split("/", 3)[2]


def data_pattern(dataset_uri: str | None) -> str:
    """The wildcard for which a run waits there: its data, or without a URI any claimed batch. Only ``*`` is one."""
    key = _awaited(dataset_uri).split("/", 3)[3].replace("[", "[[]").replace("?", "[?]")
    return f"{key}*" if key.endswith("/") or not key else key


def _awaited(dataset_uri: str | None) -> str:
    return dataset_uri or lake.claims("*", "manifest.json")
