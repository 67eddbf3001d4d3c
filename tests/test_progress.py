import pytest

from edgevit.errors import InputError
from edgevit.progress import ProgressEvent, Reporting


def test_an_event_prints_as_a_line():
    seen = []
    report = Reporting(lambda event: seen.append(str(event)))
    list(report.track("ab", total=2, label="Calibrating"))
    report.note("Assumed 6 heads")
    assert seen == ["Calibrating: 0/2", "Calibrating: 1/2", "Calibrating: 2/2", "Assumed 6 heads"]
    assert f"{ProgressEvent('Reading', 0, 0)}" == "Reading: 0/0"


def test_a_function_may_stop_the_work_by_any_exception_but_a_loops_end():
    seen = iter([None, None])
    report = Reporting(lambda _: next(seen))
    with pytest.raises(InputError, match="raised StopIteration") as caught:
        list(report.track("abc", total=3, label="Calibrating"))
    assert "another exception" in caught.value.remedy
    with pytest.raises(InputError, match="raised StopIteration"):
        report.note("Assumed 6 heads")

    def stop(event):
        raise KeyError(event.message)

    with pytest.raises(KeyError, match="Assumed"):
        Reporting(stop).note("Assumed 6 heads")
