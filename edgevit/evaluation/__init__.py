"""Accuracy and latency of every variant against float32, and the verdict."""
