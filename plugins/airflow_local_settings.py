"""Airflow imports this first in each of its processes, and once more as a plugin should a platform have its own one."""

from include.orchestration.safe_start import refuse_unsafe_configuration

__all__: list[str] = []  # nothing here is to become a setting of Airflow's

refuse_unsafe_configuration()
