"""The table of the terminal, and the words of its verdicts."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgevit.bundle.manifest import Fallback, Kernels, LimitEvidence, LimitVerdict
from edgevit.report.formats import NOTHING
from edgevit.report.table import HEADINGS, float_layers, headings, remarks, rows

PLAIN = str.maketrans("\N{NO-BREAK SPACE}\N{EN DASH}\N{MINUS SIGN}\N{MULTIPLICATION SIGN}", " --x")


def plain(row):
    return [cell.translate(PLAIN) for cell in row]


def test_every_cell_of_a_good_bundle(sample):
    table = [plain(row) for row in rows(sample.FULL)]
    assert len(HEADINGS) == len(table[0])
    assert table[0] == [
        *("float32-onnxruntime", "4.93 MB", "91.99 % (91.44-92.51)", "0.00", "100.00 %", "1.31 ms", "-", "reference")
    ]
    assert table[1] == [
        *("int8-onnxruntime", "1.38 MB", "91.87 % (91.32-92.39)", "-0.12", "98.91 %", "0.710 ms"),
        *("1.83x (1.79-1.87)", "passed"),
    ]
    assert remarks(sample.FULL) == []


def test_every_trouble_has_its_word(sample):
    table = [plain(row) for row in rows(sample.TROUBLED)]
    assert [row[-1] for row in table] == [
        "reference",
        "failed",
        "accurate, but slower",
        "failed",
        "accurate, speed in doubt",
        "did not run",
        "not validated",
    ]
    assert table[4][5:7] == ["0.800 ms ?", "1.60x (1.57-1.63) ?"]
    assert table[5][5:7] == ["-", "-"]
    assert table[6][2:7] == ["-"] * 5


def test_remarks_say_why(sample):
    lines = remarks(sample.TROUBLED)
    assert len(lines) == 5
    assert lines[0] == "int8-onnxruntime: failed: top-1 fell 1.88 points, 0.5 allowed"
    assert lines[2] == "int8-openvino: failed: 3 of 25 Linear layers run in float"
    assert "other processes took 31 %" in lines[3]
    assert "signal 9" in lines[4]


def test_a_reason_of_doubt_that_a_race_gave_is_said_once(sample):
    doubted = sample.TROUBLED.variants[4]
    reason = f"its time: {doubted.latency.invalid_reason}"
    raced = replace(doubted, evidence=(LimitEvidence(limit="speed", word="not shown", reason=reason),))
    assert remarks(sample.manifest(raced)) == [f"{raced.name}: not shown: speed: {reason}"]


def test_what_holds_for_several_variants_is_said_once(sample):
    one, other = sample.TROUBLED.variants[4], sample.TROUBLED.variants[1]
    names = ["a", "b", "c"]
    bundle = sample.manifest(*(replace(one, name=name) for name in names), other)
    reason = one.latency.invalid_reason
    shared, failed = remarks(bundle)
    assert shared == f"a, b, c: accurate, speed in doubt: {reason}"
    assert failed.startswith(f"{other.name}: failed: ")
    assert remarks(bundle, ["c"]) == [f"c: accurate, speed in doubt: {reason}"]
    assert remarks(bundle, []) == []


def test_a_speed_up_that_may_be_none_is_not_passed(sample):
    latency = sample.latency(0.9, 1.01, speedup_ci95=(0.97, 1.04))
    bundle = sample.manifest(sample.variant("int8", "int8", "o", accuracy=sample.accuracy(), latency=latency))
    assert rows(bundle)[0].verdict == "accurate, not faster"


def test_only_precisions_that_promise_integers_fail_without_them(sample):
    kernels = Kernels(linears=25, integer_linears=0, float_linears=tuple("ab"))
    for precision, verdict in (("int8-dynamic", "failed"), ("int8-weights", "passed"), ("fp16", "passed")):
        one = sample.variant(
            precision, precision, "o", accuracy=sample.accuracy(), latency=sample.latency(0.9, 1.2), kernels=kernels
        )
        assert rows(sample.manifest(one))[0].verdict == verdict


def test_without_times_nothing_is_said_of_speed(sample):
    bundle = sample.manifest(sample.variant("int8", "int8", "o", accuracy=sample.accuracy()))
    assert rows(bundle)[0].verdict == "accurate, not timed"
    assert remarks(bundle) == []


def test_without_labels_agreement_stands_alone(sample):
    unlabelled = sample.accuracy(top1=None, top1_ci95=None, top5=None, delta_top1=None, mcnemar_p=None, images=500)
    bundle = sample.manifest(sample.variant("int8", "int8", "o", accuracy=unlabelled))
    assert plain(rows(bundle)[0])[2:5] == ["-", "-", "98.9 %"]


def test_an_embedding_model_has_its_own_figures(sample):
    above = headings(sample.EMBEDDING)
    assert above[2:5] == ("recall@1 (95 %)", "cosine (worst 1 %)", "neighbour")
    assert headings(sample.FULL) == HEADINGS
    table = [plain(row) for row in rows(sample.EMBEDDING)]
    assert table[1][2:5] == ["84.21 % (83.48-84.91)", "0.9956 (0.9812)", "90.12 %"]
    assert table[1][-1] == "passed"
    assert table[2][2:5] == ["-", "-", "-"]
    unlabelled = sample.similarity(recall_at_1=None, recall_at_1_ci95=None, delta_recall_at_1=None)
    bundle = sample.manifest(
        sample.variant("int8", "int8", "o", accuracy=sample.embedding_accuracy(similarity=unlabelled))
    )
    assert plain(rows(bundle)[0])[2:5] == ["-", "0.9956 (0.9812)", "90.12 %"]


def test_names_cannot_write_to_the_terminal(sample):
    bundle = sample.manifest(sample.variant("a\x1b[2Jb\nc" + "d" * 100, "int8", "o"))
    name = rows(bundle)[0].variant
    assert name.startswith("a [2Jb c")
    assert len(name) == 40


def test_a_layer_that_is_float_on_purpose_is_no_failure(sample):
    int8 = sample.FULL.variants[1]
    kernels = Kernels(linears=25, integer_linears=23, float_linears=("head", "fc"))
    planned = tuple(Fallback(layer=layer, reason="it costs much") for layer in ("head", "fc"))
    words = [
        rows(replace(sample.FULL, variants=(replace(int8, kernels=kernels, fallback=fallback),)))[0].verdict
        for fallback in ((), planned[:1], planned)
    ]
    assert words == ["failed", "failed", "passed"]
    twice = [replace(int8, name=name, fallback=planned) for name in ("one", "two")]
    assert float_layers(twice) == [
        "one, two: head stays float: it costs much",
        "one, two: fc stays float: it costs much",
    ]


def test_a_missed_limit_is_told_before_and_after_validation(sample):
    limit = LimitVerdict(passed=False, images=24, reason="KL is 0.1 nats, 0.01 allowed")
    for accuracy, word in ((None, "limit missed"), (sample.FULL.variants[1].accuracy, "passed")):
        variant = replace(sample.FULL.variants[1], accuracy=accuracy, limit=limit)
        manifest = replace(sample.FULL, variants=(variant,))
        assert rows(manifest)[0].verdict == word
        assert remarks(manifest) == [f"{variant.name}: limit missed: KL is 0.1 nats, 0.01 allowed"]


def test_a_speed_up_that_its_times_contradict_is_withheld(sample):
    float32 = sample.variant("float32", "float32", "o", accuracy=sample.REFERENCE, latency=sample.latency(2.03, 1.0))
    for latency, reason in (
        (sample.latency(1.10, 12.68), "blocks side by side gave 12.68, the medians of float32 and of this one 1.85"),
        (sample.latency(8.80, 1.84, batch=8), "it was timed with 8 images on 2 threads, float32 with 1 image on 2"),
    ):
        int8 = sample.variant("int8", "int8", "o", accuracy=sample.accuracy(), latency=latency)
        bundle = sample.manifest(float32, int8)
        row = rows(bundle)[1]
        assert plain(row)[5:] == [f"{latency.p50_ms:.2f} ms ?", "- ?", "accurate, speed in doubt"]
        assert reason in remarks(bundle)[0]
    failed = replace(int8, accuracy=sample.accuracy(passed=False))
    assert "speed in doubt" in remarks(sample.manifest(float32, failed))[1]


@given(st.floats(0.1, 100), st.floats(0.1, 50), st.floats(0.02, 50))
def test_what_stands_on_a_line_agrees(sample, time, ratio, speedup):
    float32 = sample.variant("float32", "float32", "o", latency=sample.latency(time, 1.0))
    int8 = sample.variant("int8", "int8", "o", latency=sample.latency(time / ratio, speedup))
    (_, row) = rows(sample.manifest(float32, int8))
    shown = row.speedup != f"{NOTHING} ?"
    assert shown == (speedup * 0.98 * 0.9 <= time / (time / ratio) <= speedup * 1.02 * 1.1)
