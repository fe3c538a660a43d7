"""What the champion's traffic is like, whether it has changed, and what follows from that. Nothing of Airflow."""
