import io
from itertools import count

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

from edgevit.cli import console
from edgevit.cli.console import BarProgress, PlainProgress


def test_plain_progress_says_how_long_it_will_take_and_took():
    said = io.StringIO()
    seconds = count(0, 4)  # each look at the clock is four seconds after the one before
    bars = PlainProgress(said, clock=lambda: float(next(seconds)))
    assert list(bars.track("abcdefg", total=7, label="calibrate")) == list("abcdefg")
    assert said.getvalue().splitlines() == [
        "calibrate: 3/7, about 16 s left",
        "calibrate: 6/7, about 4 s left",
        "calibrate: 7/7, 32.0 s",
    ]


def test_plain_progress_passes_an_empty_run_through():
    said = io.StringIO()
    assert list(PlainProgress(said, clock=lambda: 0.0).track([], total=0, label="nothing")) == []
    assert said.getvalue() == "nothing: 0/0, 0.0 s\n"


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def test_bars_may_be_nested_and_go_away(terminal):
    with Bars(console=terminal, transient=True) as bars:
        progress = BarProgress(bars)
        for _ in progress.track(range(2), total=2, label="epochs"):
            for _ in progress.track(range(3), total=3, label="steps"):
                assert [task.description for task in bars.tasks] == ["epochs", "steps"]
        assert not bars.tasks


def test_a_bar_goes_away_when_the_work_fails(terminal):
    def images():
        yield 1
        raise OSError

    with Bars(console=terminal, transient=True) as bars:
        with pytest.raises(OSError, match=r"^$"):
            list(BarProgress(bars).track(images(), total=2, label="read"))
        assert not bars.tasks


def test_notes_are_taken_as_they_are(terminal):
    with Bars(console=terminal, transient=True) as bars:
        BarProgress(bars).note("kept [bold] and 1/2")
    assert "kept [bold] and 1/2" in terminal.file.getvalue()


def test_progress_is_plain_where_stderr_is_no_terminal(capsys):
    with console.progress() as progress:
        progress.note("one line")
    assert capsys.readouterr() == ("", "one line\n")


def test_a_note_is_said_once_and_others_as_well():
    out = io.StringIO()
    progress = PlainProgress(out)
    for message in ("left out 1 image", "    left out 1 image", "left out 2 images", "left out 1 image"):
        progress.note(message)
    list(progress.track([], total=0, label="Reading"))
    list(progress.track([], total=0, label="Reading"))
    assert out.getvalue().splitlines()[:2] == ["left out 1 image", "left out 2 images"]
    assert out.getvalue().count("Reading: 0/0") == 2


def test_a_note_above_bars_is_said_once(terminal):
    with Bars(console=terminal, transient=True) as bars:
        shown = BarProgress(bars)
        for _ in range(2):
            shown.note("left out [1] image")
    assert terminal.file.getvalue().count("left out [1] image") == 1
