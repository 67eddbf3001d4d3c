"""Exact rewrites of the float graph before it is quantized: the same function, in numbers that round better."""
