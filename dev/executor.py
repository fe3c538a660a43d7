"""LocalExecutor, faster for many short tasks."""

import gc
from importlib import import_module

from airflow.executors.local_executor import LocalExecutor

# None of this project's own: what is changed in include/ has to count from the next task on.
PRELOADED = (
    "astro.sql",
    "matplotlib.backends.backend_svg",
    "mlflow",
    "sklearn.metrics",
    "torch.nn.attention.varlen",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
)


class PreloadedLocalExecutor(LocalExecutor):  # type: ignore[misc]  # airflow is untyped here
    """Imports the large packages before the workers are forked, so that not every task has to: it takes seconds."""

    def start(self) -> None:
        """Starts the workers."""
        for name in PRELOADED:
            import_module(name)
        gc.freeze()  # a collection would write to what is imported, and so end that all workers share it
        super().start()
