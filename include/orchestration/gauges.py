"""The model's numbers among Airflow's metrics (StatsD, and from there Prometheus)."""

from airflow.stats import Stats


def show(model_name: str, **measures: float | None) -> None:
    """Sets ``model.<measure>.<model>`` to each measure that there is: ``live_accuracy``, ``estimated_accuracy`` …"""
    for name, value in measures.items():
        if value is not None:
            Stats.gauge(f"model.{name}.{model_name}", value)
