import math
from collections import Counter

import numpy as np
import pytest

from teamsrl_hf.evaluation.embeddings import embedder, hashed_embeddings
from teamsrl_hf.evaluation.intervals import bootstrap_interval, half_sample_interval, wilson_interval
from teamsrl_hf.evaluation.measures import (
    complexity_measures,
    compression_ratio,
    distinct_n,
    diversity_measures,
    instruction_measures,
    ledger_calls,
    mean_pairwise_distance,
    novelty,
    novelty_measures,
    query_efficiency,
    self_repetition,
    validity_measures,
    vendi_score,
)
from teamsrl_hf.evaluation.readability import flesch_kincaid_grade, mtld, syllables
from teamsrl_hf.models.base import Request, ScriptedGenerator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.seeds import load_seeds
from teamsrl_hf.text.words import word_grams

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


def grams_themselves(texts):
    """Word 1- and 2-grams counted in a column for each: what hashed embeddings stand for."""
    counts = [Counter(word_grams(text)) for text in texts]
    columns = {gram: place for place, gram in enumerate(dict.fromkeys(gram for row in counts for gram in row))}
    matrix = np.zeros((len(texts), len(columns)))
    for row, count in zip(matrix, counts):
        row[[columns[gram] for gram in count]] = list(count.values())
    return matrix


@pytest.mark.parametrize("copies", [1, 12])
def test_hashed_words_give_the_vendi_score_of_the_words_themselves_however_long_the_texts(copies):
    """Longer texts used to fill all buckets, so that the score of 300 came out 25 % too low."""
    # Each text with those after it: longer, and still 317 different ones.
    seeds = [seed.text for seed in load_seeds()]
    texts = [" ".join(seeds[(i + 7 * k) % len(seeds)] for k in range(copies)) for i in range(len(seeds))]
    assert vendi_score(hashed_embeddings(texts)) == pytest.approx(vendi_score(grams_themselves(texts)), rel=0.005)


def test_measures_that_embed_texts_are_of_a_drawn_part_of_a_large_set_and_say_so(monkeypatch):
    monkeypatch.setattr("teamsrl_hf.evaluation.measures.MOST_EMBEDDED", 30)
    texts = [seed.text for seed in load_seeds()[:60]]
    found = diversity_measures(texts, resamples=5)
    assert (found["rows"], found["embedded_rows"]) == (60, 30)
    assert 20 < found["vendi_score"] < 30
    assert diversity_measures(texts, resamples=5) == found


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
    assert scores[1] == pytest.approx(1, abs=0.01)  # hashed grams seldom meet in a bucket


def test_novelty_uses_the_embedding_it_is_given():
    def by_length(texts):
        return np.array([[len(text), 1.0] for text in texts])

    assert novelty(["abc"], ["xyz"], embed=by_length)[0] == pytest.approx(0)


def test_hashed_embeddings_are_the_same_everywhere_and_ignore_case_and_punctuation():
    first, second = hashed_embeddings(["Sort THESE, please!", "sort these please"], dim=64)
    assert np.array_equal(first, second)
    # crc32("sort") = 0x5124f222, and 0x22 = 34: fixed by zlib, not by Python's salted hash. The top bit is the sign.
    assert np.flatnonzero(hashed_embeddings(["sort"], dim=64)[0]).tolist() == [34]
    assert hashed_embeddings(["sort"], dim=64)[0, 34] == 1
    assert hashed_embeddings(["a b", "", "!?", "\ud800"]).shape == (4, 65_536)
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


# "Measure of textual lexical diversity ...": text, cleaning and score are those of LexicalRichness' README.
MTLD_TEXT = """measure of textual lexical diversity computed as the mean length of sequential words in a text that
maintains a minimum threshold ttr score iterates over words until ttr scores falls below a threshold then increase
factor counter by and start over mccarthy and jarvis pg recommends a factor threshold in the range of mccarthy
mccarthy and jarvis"""


def test_mtld_is_that_of_the_published_example():
    words = MTLD_TEXT.split()
    assert (len(words), len(set(words))) == (57, 39)
    assert mtld(words, threshold=0.72) == pytest.approx(46.79226361031519)


def test_mtld_does_not_grow_with_length_where_distinct_words_fall():
    luck = np.random.default_rng(0)
    chances = 1 / np.arange(1, 2001)
    words = [f"w{i}" for i in luck.choice(2000, size=8000, p=chances / chances.sum())]
    parts = [words[start : start + 1000] for start in range(0, 8000, 1000)]
    assert mtld(words) == pytest.approx(np.mean([mtld(part) for part in parts]), rel=0.1)
    assert distinct_n([" ".join(words)], 1) < 0.6 * distinct_n([" ".join(parts[0])], 1)


def test_mtld_of_words_all_different_is_their_number_and_of_one_word_the_least():
    assert mtld([f"w{i}" for i in range(30)]) == 30
    assert mtld(["again"] * 30) == 2  # a factor is full at the second word


def test_flesch_kincaid_grade_is_worked_by_hand():
    # 6 words, 1 sentence, 6 syllables: .39 * 6 + 11.8 - 15.59.
    assert flesch_kincaid_grade("The cat sat on the mat.") == pytest.approx(-1.45)
    # 8 words, 2 sentences, 1+3+2+1 + 1+3+2+1 = 14 syllables.
    assert flesch_kincaid_grade("The elephant enters now. The elephant enters now!") == pytest.approx(
        0.39 * 4 + 11.8 * 14 / 8 - 15.59
    )


def test_syllables_of_common_words():
    ones, twos = "the now why sky write named names rule", "enters reading people table water explain many about over"
    threes = "elephant banana instruction family computer"
    for count, words in enumerate((ones, f"{twos} even wanted rivers boxes", threes), 1):
        assert {word: syllables(word) for word in words.split()} == dict.fromkeys(words.split(), count)


def test_saying_a_thing_twice_makes_it_longer_and_not_harder():
    once, twice = complexity_measures(TEXTS), complexity_measures([f"{text} {text}" for text in TEXTS])
    assert twice["words"] == 2 * once["words"]
    assert twice["flesch_kincaid_grade"] == pytest.approx(once["flesch_kincaid_grade"])
    assert twice["words_per_sentence"] == once["words_per_sentence"]
    assert once["words_interval"][0] <= once["words"] <= once["words_interval"][1]
    assert once["mtld_interval"] is None  # too few texts


def test_every_measure_of_a_set_comes_with_an_interval_around_it():
    texts = [seed.text for seed in load_seeds()[:60]]
    found = diversity_measures(texts, resamples=20)
    for name in ("vendi_score", "mean_pairwise_distance", "distinct_1", "distinct_2", "compression_ratio"):
        low, high = found[f"{name}_interval"]
        assert 0 < low < found[name] < high, name
    assert found["self_repetition_interval"][0] == 0
    assert diversity_measures(TEXTS)["vendi_score_interval"] is None  # too few texts


def test_half_samples_hold_the_truth_as_often_as_they_say():
    """The Vendi score of 100 draws out of 40 kinds: an ordinary bootstrap would miss it nearly always."""
    luck = np.random.default_rng(0)
    chances = np.arange(1, 41) / 820

    def draw():
        return np.eye(40)[luck.choice(40, p=chances, size=100)]

    truth = np.mean([vendi_score(draw()) for _ in range(150)])
    held = missed = 0
    for trial in range(50):
        rows = draw()
        low, high = half_sample_interval(100, lambda taken, rows=rows: vendi_score(rows[taken]), seed=trial)
        held += low <= truth <= high
        if trial < 10:
            low, high = bootstrap_interval(rows, vendi_score, resamples=100)
            missed += not low <= truth <= high
    assert held >= 43  # of 50 at 95 %; fewer has a chance below .005
    assert missed >= 8


def test_copies_are_counted_as_such():
    found = novelty_measures([*TEXTS[:1], "entirely unrelated vocabulary"], TEXTS)
    assert found["copies"] == 0.5
    assert found["copies_interval"] == pytest.approx(wilson_interval(1, 2))


def test_validity_counts_rewrites_by_the_rule_they_break():
    found = validity_measures(
        ["Sort these three numbers.", "Sort these four numbers.", "Rewritten prompt: sort", "..."],
        ["sort these THREE numbers", *["Sort these three numbers."] * 3],
        ["1, 2, 3", "Sorry, I cannot.", "the of and", "4, 3"],
    )
    assert found["valid_instructions"] == 0.25
    assert found["valid_instructions_rules"] == {"empty": 1, "template_leak": 1, "unchanged": 1}
    assert found["valid_instructions_interval"] == pytest.approx(wilson_interval(1, 4))
    assert found["valid_responses"] == 0.5
    assert found["valid_responses_rules"] == {"empty_response": 1, "refusal": 1}


def test_calls_per_row_of_seeds_have_an_interval_that_follows_their_spread():
    even = query_efficiency({"expert": 80}, [2] * 40)
    assert even["calls_per_row_interval"] == (1, 1)
    found = query_efficiency({"expert": 80}, [0, 4] * 20)
    low, high = found["calls_per_row_interval"]
    # Rows per seed are 2 +- 2 / sqrt(40) * 1.96.
    assert (low, high) == pytest.approx((2 / 2.62, 2 / 1.38), rel=0.1)
    own = query_efficiency({"expert": 80}, [0, 4] * 20, calls_per_seed=[0, 4] * 20)
    assert own["calls_per_row_interval"] == (1, 1)


def test_rare_rows_have_no_upper_bound():
    assert query_efficiency({"expert": 10}, [0, 0, 0, 1])["calls_per_row_interval"][1] == math.inf


def test_calls_are_read_from_a_ledger_and_a_missing_one_is_not_made(tmp_path):
    from teamsrl_hf.environment.rollout import run_async

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        model = ledger.record(ScriptedGenerator(lambda request: "yes"))
        for role, content in (("expert", "a"), ("expert", "b"), ("reviewer", "a"), ("reviewer", "a")):
            run_async(model(Request(role, ({"role": "user", "content": content},))))
    assert ledger_calls(tmp_path) == {"expert": 2, "reviewer": 1}
    with pytest.raises(ValueError, match="There is no ledger at"):
        ledger_calls(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_an_unknown_embedding_is_named():
    assert embedder() is hashed_embeddings
    with pytest.raises((ValueError, ImportError), match="no/such-model"):
        embedder("no/such-model")


@pytest.mark.parametrize(
    "measure",
    [
        lambda: diversity_measures(["one", "two"]),
        lambda: diversity_measures(["only one text"]),
        lambda: complexity_measures([]),
        lambda: complexity_measures(["...", "!"]),
        lambda: mtld([]),
        lambda: validity_measures([], []),
        lambda: validity_measures(["a"], ["b", "c"]),
        lambda: validity_measures(["a"], ["b"], ["c", "d"]),
        lambda: novelty_measures([], TEXTS),
        lambda: query_efficiency({"expert": 5}, [0, 0]),
        lambda: query_efficiency({"expert": 5}, [1, 1], calls_per_seed=[5]),
    ],
)
def test_sets_that_cannot_be_measured_are_a_value_error(measure):
    with pytest.raises(ValueError):
        measure()


@pytest.mark.slow  # sentence-transformers alone takes seconds to import.
def test_a_sentence_embedding_is_taken_by_name(tmp_path):
    pytest.importorskip("sentence_transformers", reason="needs the extra `evaluation`")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"vocab_size": 15, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=16)).save_pretrained(tmp_path / "bert")
    SentenceTransformer(modules=[Transformer(str(tmp_path / "bert")), Pooling(16)]).save(str(tmp_path / "sentences"))
    vectors = embedder(str(tmp_path / "sentences"))(["a b", "c d", "a b"])
    assert vectors.shape == (3, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vendi_score(vectors) < 2.0001
