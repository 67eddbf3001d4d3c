import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import MissingDependencyError
from edgevit.versions import check_version, in_range, narrowed, range_reason


@pytest.mark.parametrize(
    ("version", "specifier", "inside"),
    [
        ("10.3.0", ">=10.3,<10.12", True),
        ("10.3.0.30-1+cuda12.5", ">=10.3,<10.12", True),  # as apt has it
        ("10.12.0.36", ">=10.3,<10.12", False),
        ("10.9", ">=10.12", False),  # numbers, not letters
        ("2026.4.1", ">=2024.6", True),
        ("8.6.2.3", ">=8.6,<9", True),
        ("1.20.0rc1", ">=1.20", True),
        ("unknown", ">=1", False),
    ],
)
def test_a_version_is_in_a_range_or_not(version, specifier, inside):
    assert in_range(version, specifier) == inside


@given(numbers=st.lists(st.integers(0, 99), min_size=2, max_size=4), limit=st.tuples(*[st.integers(0, 99)] * 2))
def test_ranges_are_those_of_numbers(numbers, limit):
    text = ".".join(map(str, numbers))
    assert in_range(text, f">={limit[0]}.{limit[1]}") == (tuple(numbers) >= limit)


@pytest.mark.parametrize("wrong", ["10.3", ">=10.x", "newest", "", "  ", ">=1 <2"])
def test_what_is_no_range_says_so(wrong):
    assert range_reason(wrong)


def test_another_version_is_an_error_with_both():
    with pytest.raises(
        MissingDependencyError, match=r"this is for tensorrt >=10.3,<10.12, and this is 8.6.2"
    ) as caught:
        check_version("this", "tensorrt", "8.6.2", ">=10.3,<10.12", remedy="do that")
    assert caught.value.remedy == "do that"
    check_version("this", "tensorrt", "8.6.2", None, remedy="")


@pytest.mark.parametrize(
    ("versions", "first", "expected"),
    [
        (None, "1.20", ">=1.20"),
        (">=1.20", "1.23", ">=1.23"),
        (">=1.25", "1.23", ">=1.25"),
        (">=1.20,<1.30", "1.24", ">=1.24,<1.30"),
        ("<2", "1.24", ">=1.24,<2"),
    ],
)
def test_a_targets_range_loses_what_is_too_old(versions, first, expected):
    assert narrowed(versions, first) == expected
