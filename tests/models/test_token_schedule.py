import pytest

from edgevit.errors import SpecError
from edgevit.models.spec import PRESETS, ModelSpec
from edgevit.models.token_schedule import check_schedule, even_schedule, most_merged, share_of_work


def test_the_share_of_work_is_counted_as_in_the_paper_of_deit():
    tiny = PRESETS["vit-tiny"]
    # 1.25 G multiply-adds in all (fvcore, timm's results table); 197 tokens, width 192.
    whole = 12 * (197 * 192 * 192 * 12 + 2 * 197 * 197 * 192) + 196 * 768 * 192 + 192_000
    assert whole == pytest.approx(1.254e9, rel=5e-3)
    saved = 98 * 8 * 192 * 192 + 0  # of the last block's MLP
    assert share_of_work(tiny, [0] * 11 + [98 - 1]) == pytest.approx(1 - saved / 98 * 97 / whole, rel=1e-6)
    assert share_of_work(tiny, [0] * 12) == 1


@pytest.mark.parametrize("budget", [0.95, 0.8, 0.7, 0.5])
def test_an_even_schedule_keeps_to_its_budget_and_hardly_goes_below(budget):
    spec = PRESETS["vit-tiny"]
    schedule = even_schedule(spec, budget)
    check_schedule(spec, schedule)
    assert budget - 0.02 < share_of_work(spec, schedule) <= budget
    assert not any(schedule[:4])
    assert schedule[-1] == 0


def test_a_budget_that_merging_cannot_reach_is_refused():
    with pytest.raises(SpecError, match="at least 0"):
        even_schedule(PRESETS["vit-tiny"], 0.1)


@pytest.mark.parametrize(("tokens", "prefix", "most"), [(197, 1, 97), (81, 0, 40), (6, 5, 0), (3, 1, 0), (4, 1, 0)])
def test_a_block_merges_half_of_the_patches_at_the_most(tokens, prefix, most):
    from edgevit.graph.passes import merge_tokens

    assert most_merged(tokens, prefix) == most == merge_tokens.most_merged(tokens, prefix)


def test_a_model_of_two_blocks_has_a_schedule():
    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=8)
    assert sum(even_schedule(spec, 0.9)) > 0
