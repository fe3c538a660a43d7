"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "bert_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "bert_request_seconds", "From request to answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.batch_texts = Histogram("bert_batch_texts", "Texts of a batch", buckets=SIZES, registry=self.registry)
        self.tokens = Counter("bert_tokens", "Tokens answered", registry=self.registry)
        self.waiting_tokens = Gauge("bert_waiting_tokens", "Tokens that wait", registry=self.registry)
        self.labels = Counter("bert_labels", "Answers by label", ["model", "label"], registry=self.registry)
        self.confidence = Histogram(
            "bert_confidence",
            "Probability of the label answered",
            ["model"],
            buckets=(0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
            registry=self.registry,
        )
        self.version = Gauge(
            "bert_model_version", "1 for the version that answers", ["model", "version", "role"], registry=self.registry
        )
        beside = ["model", "role", "version"]
        self.compared = Counter(
            "bert_compared", "Texts that a canary or shadow was asked too", beside, registry=self.registry
        )
        self.different = Counter("bert_different", "Of them with another label", beside, registry=self.registry)
        self.log_waiting = Gauge("bert_log_waiting_rows", "Predictions not logged yet", registry=self.registry)
        self.log_lost = Gauge("bert_log_lost_rows", "Predictions never logged", registry=self.registry)
