"""What TensorRT fuses, and on which GPUs: as its compiler showed (TensorRT-RTX 1.7.1), for SM75 to SM120 alike."""

from __future__ import annotations

#: Features of a head, for which attention with INT8 query, key, softmax and value is one kernel; float16 takes any.
INT8_HEAD_SIZES = (16, 32, 64)
#: The most tokens for which it is.
INT8_TOKENS = 512

#: The first compute capability that multiplies FP8.
FP8_COMPUTE_CAPABILITY = "8.9"


def unfused_reason(head_size: int, tokens: int) -> str | None:
    """Return why attention in INT8 over ``tokens``, of heads of ``head_size`` features, is no single kernel."""
    if head_size not in INT8_HEAD_SIZES:
        *others, last = map(str, INT8_HEAD_SIZES)
        return f"INT8 attention is fused for heads of {', '.join(others)} or {last} features, not {head_size}"
    if tokens > INT8_TOKENS:
        return f"INT8 attention is fused for up to {INT8_TOKENS} tokens, not {tokens}"
    return None


def has_fp8(compute_capability: str) -> bool:
    """Say whether a GPU of ``compute_capability``, such as 8.7, multiplies FP8."""
    major, minor = map(int, FP8_COMPUTE_CAPABILITY.split("."))
    found = tuple(int(number) for number in compute_capability.split("."))
    return found >= (major, minor)
