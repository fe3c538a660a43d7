"""Says what would become of a file before it is uploaded: the console starts it."""

from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND


@dag(
    dag_id="preview_upload",
    description="Says what would become of a file before it is uploaded.",
    **STARTED_BY_HAND | {"tags": ["bert", "console"]},
    params={
        "draft_id": Param(
            type="string",
            pattern=r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{8}$",
            title="Draft",
            description="The console's name for a file in drafts/",
        ),
        "file": Param(None, type=["null", "string"], title="File", description="Its name, for who looks at the run"),
    },
    doc_md="""
The console's page *Train* starts this for each file that is dropped there. The pipeline's own intake reads the file, as
the next run would, beside the uploads that wait for that run; what it makes of each row lies beside the draft in
`drafts/`. Nothing is claimed, and nothing is trained on.
""",
)
def preview_upload() -> None:
    @task
    def look(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import previewing

        try:
            seen = previewing.preview(dag_run.run_id, params["draft_id"])
        except previewing.NoDraft as error:
            raise AirflowFailException(str(error)) from error
        return seen.model_dump(mode="json", include={"outcome", "rows_in", "used", "rejected", "waiting"})

    look()


preview_upload()
