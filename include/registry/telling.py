"""What people are told of the ledger's decisions: those by which another version answers, or might."""

from include import alerts, lake
from include.alerts import Alert
from include.registry.ledger import Entry
from include.settings import settings

KINDS = {
    "promote": ("promotion", "version {version} is the champion now"),
    "by_hand": ("promotion", "version {version} was made champion by hand, in MLflow"),
    "restore": ("promotion", "the champion was deleted in MLflow, and is version {version} now"),
    "reject": ("rejection", "version {version} was rejected"),
    "rollback": ("rollback", "rolled back from version {before} to version {version}"),
    "await": ("approval", "version {version} waits for a person"),
}
HOW_TO_ANSWER = "Answer with make approve RUN='{run_id}' NAME=… REASON=…, or make reject, or the DAG decide_challenger."


def tell(entry: Entry) -> bool:
    """Raises a decision's alert, once however often it is carried out; False if it was raised before, or has none."""
    if entry.verb not in KINDS:
        return False
    kind, words = KINDS[entry.verb]
    happened = words.format(version=entry.version, before=entry.previous_champion or "none")
    text = f"{entry.reason}\n\nBy {entry.actor}."
    if entry.verb == "await":
        text += f" {HOW_TO_ANSWER.format(run_id=entry.dag_run_id)}"
    elif entry.previous_champion and entry.verb != "rollback":
        text += f" The champion before: version {entry.previous_champion}."
    alert = Alert(kind, entry.decision_id, f"{entry.model_name}: {happened}", text, links(entry))
    return alerts.raise_alert(alert, entry.model_name)


def links(entry: Entry) -> dict[str, str]:
    """Where to look: the version in MLflow, the report, the run in Airflow."""
    base = (settings().mlflow_public_url or settings().mlflow_tracking_uri).rstrip("/")
    found = {"model": f"{base}/#/models/{entry.model_name}/versions/{entry.version}"}
    if entry.actor.startswith("dag:"):
        dag_id = entry.actor.removeprefix("dag:")
        if entry.gates:  # it was measured, and there is a page about that
            found["report"] = lake.report(dag_id, entry.dag_run_id, "report.html")
        found["run"] = f"airflow:{dag_id}/{entry.dag_run_id}"
    return found
