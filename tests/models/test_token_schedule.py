import pytest

from edgevit.graph.token_merging import TokenSets
from edgevit.models.token_schedule import most_merged


@pytest.mark.parametrize(("tokens", "prefix", "most"), [(197, 1, 97), (81, 0, 40), (6, 5, 0), (3, 1, 0), (4, 1, 0)])
def test_a_block_merges_half_of_the_patches_at_the_most_as_the_pass_has_it(tokens, prefix, most):
    sets = TokenSets(tokens, prefix, 0)  # by which the pass parts them: one of A must stay
    assert most_merged(tokens, prefix) == most == max(0, min(sets.in_a - 1, sets.in_b))
