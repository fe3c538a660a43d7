"""A simulated month on a real stack: ``make demo-month``.

PostgreSQL, S3, MLflow, the model server and an FTP server are real, and so are the DAGs' tasks; the time is the month's
(``dev.month.clock``), and in place of a scheduler each run is started by its logical date (``dev.month.runs``).
``plan`` has the days, ``people`` those who write and label, ``telling`` lives through the days, ``stories`` judges
them, ``picture`` draws them.
"""
