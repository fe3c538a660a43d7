"""Makes the role Trainer where Airflow keeps its own users: ``python -m include.orchestration.create_trainer_role``.

Airflow's roles go from Viewer, who may start nothing, to User, who may start, edit and delete everything. Trainer is
what lies between, and is given together with Viewer: it trains, and it cannot roll back. Viewer gets the console's
entries in the menu, which Airflow shows to administrators alone; its pages look at the rights themselves.
"""

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.security import permissions

TRAINER, VIEWER = "Trainer", "Viewer"
TRAINING_DAGS = ("bert_model_training_pipeline", "preview_upload")
PERMISSIONS = (
    *((permissions.ACTION_CAN_EDIT, f"{permissions.RESOURCE_DAG_PREFIX}{dag_id}") for dag_id in TRAINING_DAGS),
    (permissions.ACTION_CAN_CREATE, permissions.RESOURCE_DAG_RUN),
    (permissions.ACTION_CAN_EDIT, permissions.RESOURCE_DAG_RUN),
    (permissions.ACTION_CAN_EDIT, permissions.RESOURCE_TASK_INSTANCE),
)
"""The last three hold only for DAGs that the role may edit."""

CONSOLE_MENU = ("Console", "Console Model", "Console Train", "Console Data", "Console Watch", "Console Access")
MENU = tuple((permissions.ACTION_CAN_ACCESS_MENU, entry) for entry in CONSOLE_MENU)


def main() -> None:
    """Creates the role, or adds what it lacks; may be repeated without harm."""
    with get_application_builder() as builder:
        for name, granted in ((TRAINER, PERMISSIONS), (VIEWER, MENU)):
            role = builder.sm.add_role(name)
            for action, resource in granted:
                builder.sm.add_permission_to_role(role, builder.sm.create_permission(action, resource))


if __name__ == "__main__":
    main()
