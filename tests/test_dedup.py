import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from teamsrl_hf.evolve import dedup
from teamsrl_hf.evolve.dedup import BANDS, PERMUTATIONS, PROBES, SLOTS, NearDuplicates

LONG = "write a short story about a lonely robot that learns to paint in the desert after the last human has left"


def test_a_light_edit_of_another_seeds_row_is_a_duplicate():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert not rows.add(LONG.upper() + "!", "s2")
    assert not rows.add(LONG + " today", "s2")


def test_the_same_words_in_another_order_are_no_duplicate():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert rows.add(" ".join(reversed(LONG.split())), "s2")


@pytest.mark.parametrize(("threshold", "kept"), [(0.49, False), (0.5, False), (0.51, True), (0.55, True)])
def test_a_row_that_shares_just_the_threshold_is_a_duplicate(monkeypatch, threshold, kept):
    """Two signatures that agree in half of their permutations, eight whole bands among them."""
    first = np.arange(PERMUTATIONS, dtype=np.uint16)
    second = np.where(first < PERMUTATIONS // 2, first, first + 1000).astype(np.uint16)
    signatures = {"a": first.view(np.uint64), "b": second.view(np.uint64)}
    assert len(signatures["a"]) == BANDS
    monkeypatch.setattr(dedup, "_signature", signatures.get)
    rows = NearDuplicates(threshold)
    assert rows.add("a", "s1")
    assert rows.add("b", "s2") is kept


def test_a_different_instruction_is_none():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert rows.add("explain how tides arise from the pull of the moon and the sun on the oceans of the earth", "s2")


def test_rows_of_one_seed_are_not_held_against_each_other():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert rows.add(LONG + " today", "s1")


def test_what_was_refused_is_not_remembered():
    rows = NearDuplicates(threshold=0.95)
    assert rows.add("name a bird", "s1")
    assert not rows.add("name a bird", "s2")
    assert rows.add("name a bird", "s1")


def test_texts_without_words_do_not_crash():
    assert NearDuplicates().add("?!", "s1")


WORDS = [f"{a}{b}" for a in ("sun", "sea", "oak", "fox", "ink", "jam") for b in range(100)]


def _grams(words):
    return {*words, *pairwise(words)}


def _edited(words, rng):
    return [rng.choice(WORDS) if rng.random() < 0.04 else word for word in words]


def test_of_planted_near_duplicates_hardly_one_is_missed_and_nothing_else_is_refused():
    rng = random.Random(11)
    rows = NearDuplicates()
    known = [rng.choices(WORDS, k=40) for _ in range(1500)]
    assert all(rows.add(" ".join(words), f"s{i}") for i, words in enumerate(known))
    near = found = refused = 0
    for i, words in enumerate(known):
        copy = _edited(words, rng)
        similarity = len(_grams(words) & _grams(copy)) / len(_grams(words) | _grams(copy))
        refuse = not rows.add(" ".join(copy), f"copy{i}")
        near += similarity >= 0.8
        found += refuse and similarity >= 0.8
        refused += refuse and similarity < 0.6
    assert (near, found, refused) == (1280, 1280, 0)


def test_a_row_is_found_again_after_the_table_has_grown():
    rng = random.Random(3)
    rows = NearDuplicates()
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(3_200)]  # Doubled at 1,537 and 3,073 rows.
    assert all(rows.add(text, f"s{i}") for i, text in enumerate(texts))
    assert len(rows) == len(texts)
    assert not any(rows.add(text, "another") for text in texts[::4])


def test_a_row_takes_less_than_a_kilobyte():
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(1_600)]
    rows = NearDuplicates()
    tracemalloc.start()
    for i, text in enumerate(texts):
        rows.add(text, f"s{i}")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 256 bytes of signature, 8 of its seed, with room to grow a quarter more; 171 to 341 of index.
    assert 400 < held / len(texts) < 700


def test_rows_that_share_a_long_template_stay_findable_and_cost_no_more_and_more():
    rng = random.Random(5)
    template = " ".join(rng.choices(WORDS, k=60))
    rows = NearDuplicates()
    texts = [f"{template} {' '.join(rng.choices(WORDS, k=40))}" for _ in range(700)]
    assert sum(rows.add(text, f"s{i}") for i, text in enumerate(texts)) == len(texts)
    # Some words of the signature come from the template alone: more rows share them than a word is looked for in.
    assert len(texts) > SLOTS * PROBES
    assert not any(rows.add(text, "another") for text in texts[::4])


def test_a_text_of_common_words_alone_is_still_looked_for():
    rows = NearDuplicates()
    assert all(rows.add(LONG, "s1") for _ in range(SLOTS * PROBES + 40))  # Rows of one seed are let be.
    assert not rows.add(LONG, "s2")


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_the_threshold_is_kept(threshold):
    rng = random.Random(9)
    words = rng.choices(WORDS, k=200)
    kept = []
    for changed in range(0, 100, 5):
        rows = NearDuplicates(threshold)
        rows.add(" ".join(words), "s1")
        copy = [*words[changed:], *rng.choices(WORDS, k=changed)]
        similarity = len(_grams(words) & _grams(copy)) / len(_grams(words) | _grams(copy))
        if abs(similarity - threshold) > 0.12:  # Three times what an estimate from 128 numbers is off by.
            kept.append(rows.add(" ".join(copy), "s2") == (similarity < threshold))
    assert len(kept) > 8
    assert all(kept)
