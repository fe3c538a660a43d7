"""The Airflow Datasets that connect the DAGs."""

from airflow.datasets import Dataset

from include import lake

INCOMING = Dataset(f"{lake.root()}/incoming")
"""Updated each time a batch of uploads was claimed; the event's extra names the batches."""

TRAINING_EXAMPLES = Dataset(f"{lake.root()}/training_examples")
"""Updated each time the weekly ETL has new or changed rows in the warehouse's table of that name."""
