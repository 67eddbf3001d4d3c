"""A small HTTP service around a loaded model: the Open Inference Protocol, an image endpoint, and metrics."""
