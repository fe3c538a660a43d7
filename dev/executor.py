"""LocalExecutor, faster for many short tasks."""

from airflow.executors.local_executor import LocalExecutor


class PreloadedLocalExecutor(LocalExecutor):  # type: ignore[misc]  # airflow is untyped here
    """Imports what tasks need before the workers are forked, so that not every task has to: it takes seconds."""

    def start(self) -> None:
        """Starts the workers."""
        import astro.sql  # noqa: F401
        import mlflow  # noqa: F401

        import include.training.scoring  # noqa: F401

        super().start()
