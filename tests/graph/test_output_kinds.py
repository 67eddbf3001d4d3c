"""What outputs are told to be by their names and shapes."""

import pytest

from edgevit.graph.output_kinds import kinds_of, misfit_reason


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("last_hidden_state", (17, 32), "tokens"),
        ("x_norm_patchtokens", (16, 32), "tokens"),
        ("pooler_output", (32,), "embedding"),
        ("logits", (7,), "logits"),
        ("logits", (19, 32, 32), "segmentation"),
        ("seg", (1, 32, 32), "segmentation"),
        ("predicted_depth", (32, 32), "depth"),
        ("depth", (1, 32, 32), "depth"),
        ("depth", (2, 32, 32), "any"),
        ("feature_map_1", (64, 8, 8), "features"),
        ("fetch_name_0", (1, 64, 64), "any"),
        ("fetch_name_0", (40, 6625), "any"),
        ("pred_boxes", (10, 4), "boxes"),
    ],
)
def test_one_output(name, shape, kind):
    assert kinds_of([name], [shape], [None]) == (kind,)


def test_scores_are_beside_boxes():
    names, shapes = ["logits", "pred_boxes"], [(10, 6), (10, 4)]
    assert kinds_of(names, shapes, [None, None]) == ("scores", "boxes")
    assert kinds_of(names, shapes, ["logits", None]) == ("logits", "boxes")
    assert kinds_of(names, [(9, 6), (10, 4)], [None, None]) == ("logits", "boxes")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("tokens", (3,)), ("depth", (3, 8, 8)), ("boxes", (10, 5)), ("segmentation", (8, 8)), ("embedding", (2, 2)),
        ("features", (8, 8)), ("corners", (4,)),
    ],
)  # fmt: skip
def test_kinds_that_cannot_be(kind, shape):
    assert misfit_reason(kind, shape)
    assert misfit_reason("any", shape) is None
