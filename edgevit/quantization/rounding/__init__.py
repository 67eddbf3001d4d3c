"""Rounding weights for the least error of a layer's output."""
