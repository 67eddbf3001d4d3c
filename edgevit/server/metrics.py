"""What Prometheus is told of the service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from edgevit.runtime.info import RuntimeInfo

#: Seconds; from a small model on a fast core to a large one on a Raspberry Pi.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self, info: RuntimeInfo, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "edgevit_requests_total",
            "Requests by endpoint and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "edgevit_request_seconds", "Seconds of accepted requests.", buckets=_BUCKETS, registry=self._registry
        )
        self._inference = Histogram(
            "edgevit_inference_seconds", "Seconds of a batch in the engine.", buckets=_BUCKETS, registry=self._registry
        )
        self._images = Counter("edgevit_images_total", "Images that were answered.", registry=self._registry)
        queue = Gauge("edgevit_queue_requests", "Requests that wait.", registry=self._registry)
        queue.set_function(waiting)
        labels = {"variant": info.variant, "engine": info.engine, "version": info.engine_version, "sha256": info.sha256}
        Gauge("edgevit_model_info", "The model; always 1.", tuple(labels), registry=self._registry).labels(
            **labels
        ).set(1)

    def seen(self, images: int, seconds: float) -> None:
        """Note a batch that went through the engine."""
        self._images.inc(images)
        self._inference.observe(seconds)

    def text(self) -> bytes:
        """Return all of it, in Prometheus' text format."""
        return generate_latest(self._registry)
