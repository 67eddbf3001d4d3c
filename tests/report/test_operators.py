"""What the time of a variant goes to, in words."""

from types import SimpleNamespace

from edgevit.bundle.manifest import OperatorTime
from edgevit.report.operators import time_in


def latency(**times):
    return SimpleNamespace(operators=tuple(OperatorTime(operator=kind, ms=ms) for kind, ms in times.items()))


def test_the_largest_shares_are_named_and_the_rest_counted_together():
    assert time_in(latency(MatMul=5, Add=2, Softmax=1, Gelu=1, Mul=0.6, Cast=0.4)) == (
        "MatMul 50 %, Add 20 %, Softmax 10 %, Gelu 10 %, others 10 %"
    )
    assert time_in(latency(MatMul=3, Add=1)) == "MatMul 75 %, Add 25 %"


def test_an_engine_that_counts_nothing_has_no_such_line():
    assert time_in(None) is None
    assert time_in(latency()) is None


def test_what_is_not_all_does_not_look_as_if_it_were():
    assert time_in(latency(MatMul=999, Add=1)) == "MatMul 99 %, Add 0.1 %"
