"""Alerts: what people are to hear of, each event once.

Whoever sees an event raises an alert: a small object in the bucket's outbox, named by its kind and key. Sending is
another's affair (``include.orchestration.sending``), so that no server of mail or chat can hold up or fail what raised
it.
"""

from include.alerts.outbox import KINDS, Alert, raise_alert

__all__ = ["KINDS", "Alert", "raise_alert"]
