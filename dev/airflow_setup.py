"""Brings Airflow's database up to date and creates the admin user, all permissions and the role Trainer.

Run as a program in the stack's environment. The commands are those of Airflow's own CLI, called in one process:
importing Airflow three times would take most of the first start.
"""

from airflow.cli.cli_parser import get_parser
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from werkzeug.security import generate_password_hash

from include.orchestration import create_trainer_role

COMMANDS = (
    ["db", "migrate"],
    [
        *("users", "create", "--username", "admin", "--password", "admin", "--role", "Admin"),
        *("--firstname", "Local", "--lastname", "Admin", "--email", "admin@localhost"),
    ],
)


def main() -> None:
    """Runs the commands; each may be repeated without harm."""
    for command in COMMANDS:
        arguments = get_parser().parse_args(command)
        arguments.func(arguments)
    with get_application_builder() as builder:
        admin = builder.sm.find_user("admin")
        # Everybody knows this password, and each request would spend a sixth of a second on the usual hash.
        admin.password = generate_password_hash("admin", method="pbkdf2:sha256:1")
        builder.sm.update_user(admin)
        # The webserver and the scheduler each write what is missing as they start, and one fails if both do at once.
        builder.add_permissions(update_perms=True)
        builder.sm.sync_roles()
    create_trainer_role.main()


if __name__ == "__main__":
    main()
