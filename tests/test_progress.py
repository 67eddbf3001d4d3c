from edgevit.progress import ProgressEvent, Reporting


def test_an_event_prints_as_a_line():
    seen = []
    report = Reporting(lambda event: seen.append(str(event)))
    list(report.track("ab", total=2, label="Calibrating"))
    report.note("Assumed 6 heads")
    assert seen == ["Calibrating: 0/2", "Calibrating: 1/2", "Calibrating: 2/2", "Assumed 6 heads"]
    assert f"{ProgressEvent('Reading', 0, 0)}" == "Reading: 0/0"
