"""A Spark job that makes tables of others by SQL: ``spark-submit spark_job.py '{"steps": […]}'``.

Each step is a table of a name: one that lies as Parquet (``{"view": …, "parquet": [URI, …]}``), or what a query of the
tables before it gives (``{"view": …, "query": …}``), written as Parquet if it has a ``to``. The job is one file without
imports of the project, so that it runs on a cluster that has none of it.
"""

import json
import re
import sys
from typing import Any


def run(spark: Any, steps: list[dict[str, Any]]) -> None:
    """Makes the tables one after the other."""
    for step in steps:
        if "parquet" in step:
            table = spark.read.parquet(*map(_for_hadoop, step["parquet"]))
        else:
            table = spark.sql(step["query"])
        if uri := step.get("to"):
            table.write.mode("overwrite").parquet(_for_hadoop(uri))
            table = spark.read.parquet(_for_hadoop(uri))  # so that it is computed once
        table.createOrReplaceTempView(step["view"])


def _for_hadoop(uri: str) -> str:
    return re.sub("^s3://", "s3a://", uri)


def main() -> None:
    """Runs the steps that the command line has."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.appName("weekly_etl").getOrCreate()
    try:
        run(spark, json.loads(sys.argv[1])["steps"])
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
