"""Makes the role Trainer where Airflow keeps its own users: ``python -m include.orchestration.create_trainer_role``.

Airflow's roles go from Viewer, who may start nothing, to User, who may start, edit and delete everything. Trainer is
what lies between, and is given together with Viewer: it trains, and it cannot roll back.
"""

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.security import permissions

TRAINER = "Trainer"
TRAINING_DAGS = ("bert_model_training_pipeline",)
PERMISSIONS = (
    *((permissions.ACTION_CAN_EDIT, f"{permissions.RESOURCE_DAG_PREFIX}{dag_id}") for dag_id in TRAINING_DAGS),
    (permissions.ACTION_CAN_CREATE, permissions.RESOURCE_DAG_RUN),
    (permissions.ACTION_CAN_EDIT, permissions.RESOURCE_DAG_RUN),
    (permissions.ACTION_CAN_EDIT, permissions.RESOURCE_TASK_INSTANCE),
)
"""The last three hold only for DAGs that the role may edit."""


def main() -> None:
    """Creates the role, or adds what it lacks; may be repeated without harm."""
    with get_application_builder() as builder:
        role = builder.sm.add_role(TRAINER)
        for action, resource in PERMISSIONS:
            builder.sm.add_permission_to_role(role, builder.sm.create_permission(action, resource))


if __name__ == "__main__":
    main()
