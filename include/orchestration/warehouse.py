"""The warehouse, by its connection in Airflow."""

from airflow.providers.postgres.hooks.postgres import PostgresHook
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from include.orchestration.defaults import WAREHOUSE


def warehouse() -> Engine:
    """The warehouse's engine, which keeps no connection open.

    Each call makes another engine, and a task has several: what they kept open would stay so until Python frees them.
    """
    engine: Engine = PostgresHook(WAREHOUSE).get_sqlalchemy_engine({"poolclass": NullPool})
    return engine
