"""Airflow imports this first in each of its processes, and once more as a plugin should a platform have its own one."""

from include.orchestration.safe_start import alerts_about_settings, refuse_unsafe_configuration

refuse_unsafe_configuration()
DASHBOARD_UIALERTS = alerts_about_settings()

__all__ = ["DASHBOARD_UIALERTS"] if DASHBOARD_UIALERTS else []  # of these names settings of Airflow's are made
