import numpy as np
import pytest

from teamsrl_hf.text.features import hashed_vectors
from teamsrl_hf.text.words import normalise


def test_case_spacing_and_punctuation_do_not_count():
    assert normalise(" Sort THESE:  3, 1! ") == "sort these 3 1"


def test_words_of_every_script_count():
    assert normalise("Où est l'été ?") == "où est l'été"
    assert normalise("空はなぜ青い。") == "空はなぜ青い"
    assert np.linalg.norm(hashed_vectors(["почему небо синее"])[0]) == pytest.approx(1.0)


def test_buckets_are_the_same_on_every_machine():
    assert np.flatnonzero(hashed_vectors(["Name a bird."], 4096)[0]).tolist() == [525, 842, 3590, 3598, 3651]


def test_vectors_of_equal_texts_are_equal_and_of_disjoint_texts_at_right_angles():
    same, copy, other = hashed_vectors(["name a bird", "Name a bird!", "explain quantum tunnelling"])
    assert same @ copy == pytest.approx(1.0)
    assert abs(same @ other) < 0.2


def test_a_text_without_words_is_a_zero_vector():
    assert not hashed_vectors(["?!"]).any()
