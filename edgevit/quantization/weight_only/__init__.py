"""Precisions that need no calibration: weights alone in integers, and dynamic quantization."""
