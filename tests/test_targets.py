import msgspec
import pytest

from edgevit.targets import load_target

TARGET = load_target("x86-onnxruntime")


@pytest.mark.parametrize(
    ("cpuinfo", "bits"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", 8),
        ("processor : 0\nflags\t\t: fpu avx2 avx_vnni\n", 8),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", 7),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", 8),  # no x86
        ("", 8),
    ],
)
def test_weights_take_seven_bits_where_eight_would_overflow(tmp_path, cpuinfo, bits):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert TARGET.weight_bits == "auto"
    assert TARGET.weight_bits_on(tmp_path / "cpuinfo") == bits
    for fixed in (7, 8):
        assert msgspec.structs.replace(TARGET, weight_bits=fixed).weight_bits_on(tmp_path / "cpuinfo") == fixed


def test_without_cpuinfo_weights_take_eight_bits(tmp_path):
    assert TARGET.weight_bits_on(tmp_path / "nowhere") == 8


def test_settings_that_are_left_open_have_all_choices_and_prefer_the_first():
    target = msgspec.structs.replace(
        TARGET, settings={"a": "1", "b": "2"}, settings_of={"int8": {"b": "x|y", "c": "3|4"}}
    )
    assert target.choices_for("float32") == [{"a": "1", "b": "2"}]
    assert [tuple(choice.values()) for choice in target.choices_for("int8")] == [
        *(("1", "x", "3"), ("1", "x", "4"), ("1", "y", "3"), ("1", "y", "4"))
    ]
    assert target.settings_for("int8") == target.build_options("int8").settings == {"a": "1", "b": "x", "c": "3"}
