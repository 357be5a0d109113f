import math

import numpy as np
import pytest

from teamsrl_hf.evaluation import (
    bootstrap_interval,
    compression_ratio,
    distinct_n,
    hashed_embeddings,
    instruction_measures,
    mean_pairwise_distance,
    novelty,
    query_efficiency,
    self_repetition,
    vendi_score,
    wilson_interval,
)

TEXTS = [
    "Sort these three numbers.",
    "Name a river in Chile.",
    "Why is the sky blue at noon?",
    "Write a sonnet on rust.",
]


def test_copies_count_as_one_and_orthogonal_rows_as_many():
    assert vendi_score(np.ones((7, 3))) == pytest.approx(1)
    assert vendi_score(np.eye(5) * 3) == pytest.approx(5)
    # Two of one kind and two of another, whatever the number of features.
    assert vendi_score(np.repeat(np.eye(2, 9), 2, axis=0)) == pytest.approx(2)


def test_vendi_score_of_two_rows_at_sixty_degrees_is_worked_by_hand():
    # Eigenvalues of the 2 x 2 similarity matrix over 2: (1 + .5) / 2 and (1 - .5) / 2.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    rows = np.array([[1, 0], [0.5, math.sqrt(0.75)]])
    assert vendi_score(rows) == pytest.approx(expected)
    assert vendi_score(np.hstack([rows, np.zeros((2, 6))])) == pytest.approx(expected)


def test_mean_pairwise_distance_is_worked_by_hand():
    # Cosines of the three pairs: 0, 0, 1.
    assert mean_pairwise_distance(np.array([[2, 0], [0, 1], [0, 5]])) == pytest.approx(2 / 3)
    assert mean_pairwise_distance(np.ones((4, 2))) == pytest.approx(0)


def test_distinct_n_divides_different_grams_by_all_grams():
    assert distinct_n(["a b a", "A c"], 1) == pytest.approx(3 / 5)
    assert distinct_n(["a b a b", "c"], 2) == pytest.approx(2 / 3)


def test_repetition_compresses_better():
    assert compression_ratio(["the same words again"] * 50) > 20
    assert compression_ratio(["q7x"]) < 1


def test_self_repetition_counts_grams_of_other_texts_only():
    # Each of the first two holds two 2-grams that one other text holds; a repeat within one text does not count.
    assert self_repetition(["a b c", "a b c", "d e d e"], n=2) == pytest.approx(2 * math.log(3) / 3)
    assert self_repetition(["a b c d a b c d", "e f g h"]) == 0


def test_novelty_is_zero_for_a_copy_and_one_for_other_words():
    scores = novelty(["Name a river in Chile.", "entirely unrelated vocabulary"], TEXTS)
    assert scores.shape == (2,)
    assert scores[0] == pytest.approx(0, abs=1e-6)
    assert scores[1] == pytest.approx(1, abs=0.2)  # hashed grams may meet in a bucket


def test_novelty_uses_the_embedding_it_is_given():
    def by_length(texts):
        return np.array([[len(text), 1.0] for text in texts])

    assert novelty(["abc"], ["xyz"], embed=by_length)[0] == pytest.approx(0)


def test_hashed_embeddings_are_the_same_everywhere_and_ignore_case_and_punctuation():
    first, second = hashed_embeddings(["Sort THESE, please!", "sort these please"], dim=64)
    assert np.array_equal(first, second)
    # crc32("sort") = 0x5124f222, and 0x22 = 34: fixed by zlib, not by Python's salted hash.
    assert np.flatnonzero(hashed_embeddings(["sort"], dim=64)[0]).tolist() == [34]
    assert hashed_embeddings(["a b", "", "!?", "\ud800"]).shape == (4, 512)
    assert np.linalg.norm(hashed_embeddings([*TEXTS, "", "!?"]), axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    "measure",
    [
        lambda: vendi_score(np.empty((0, 4))),
        lambda: mean_pairwise_distance(np.ones((1, 4))),
        lambda: distinct_n([], 1),
        lambda: distinct_n(["too short"], 4),
        lambda: compression_ratio([]),
        lambda: self_repetition([]),
        lambda: novelty([], TEXTS),
        lambda: novelty(TEXTS, []),
        lambda: hashed_embeddings([]),
        lambda: bootstrap_interval([]),
        lambda: bootstrap_interval([1.0], level=95),
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(3, 2),
        lambda: query_efficiency({"expert": 5}, 0),
        lambda: vendi_score(np.array([[1.0, 0.0], [0.0, 0.0]])),
        lambda: vendi_score(np.ones(3)),
    ],
)
def test_what_cannot_be_measured_is_a_value_error(measure):
    with pytest.raises(ValueError):
        measure()


def test_a_row_without_direction_is_named():
    with pytest.raises(ValueError, match="Embedding 1 is zero or not finite"):
        vendi_score(np.array([[1.0, 0.0], [np.nan, 0.0]]))


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_the_table_of_newcombe_1998(wins, n, low, high):
    assert wilson_interval(wins, n) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(1).normal(10, 2, size=400)
    half = 1.96 * values.std() / 20
    low, high = bootstrap_interval(values)
    # 1,000 resamples fix a 2.5 % quantile to about 5 % of the half-width.
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)


def test_bootstrap_resamples_each_of_two_samples_on_its_own():
    low, high = bootstrap_interval((np.full(5, 3.0), np.full(9, 1.0)), lambda a, b: a.mean() - b.mean())
    assert (low, high) == (2.0, 2.0)


def test_query_efficiency_tells_the_share_per_row_from_the_share_in_total():
    # The reference: 17,878 rows at one rewrite and one answer each, "5.73 %" of 624,000 calls.
    figures = query_efficiency({"rewrite": 17_878, "answer": 17_878}, 17_878)
    assert figures["calls_per_row"] == 2
    assert figures["calls_per_row_by_role"] == {"answer": 1, "rewrite": 1}
    assert figures["share_of_baseline_total"] == pytest.approx(0.0573, abs=5e-5)
    assert figures["share_of_baseline_per_row"] == pytest.approx(2 / 2.496)


def test_a_set_of_copies_is_exposed_by_every_measure():
    varied, copied = instruction_measures(TEXTS, TEXTS[:1]), instruction_measures(TEXTS[:1] * 4, TEXTS[:1])
    assert copied["vendi_score"] == pytest.approx(1, abs=1e-4)
    assert copied["mean_pairwise_distance"] == pytest.approx(0, abs=1e-6)
    assert copied["novelty"] == pytest.approx(0, abs=1e-6)
    assert copied["distinct_1"] == 0.25
    assert varied["vendi_score"] > 3.5
    assert varied["compression_ratio"] < copied["compression_ratio"]
    assert varied["self_repetition"] == 0 < copied["self_repetition"]
    assert varied["novelty_interval"][0] <= varied["novelty"] <= varied["novelty_interval"][1]
