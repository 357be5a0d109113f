import numpy as np
import pytest

from teamsrl_hf.text.features import FORM, form_features, hashed_vectors, text_features
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


def _form(text):
    return {name: round(value, 2) for name, value in zip(FORM, form_features([text])[0].tolist()) if value}


def test_the_form_of_a_text_is_its_size_its_material_and_how_it_asks():
    assert _form("Why is the sky blue? Explain.") == {
        **{"length": 0.39, "sentences": 0.33, "has_question": 1.0, "question_word": 1.0, "how_or_why": 1.0},
        "reasons": 0.67,
    }
    assert _form('Sort the 3 numbers of "A".\n\n- 3\n- 1\n- 2') == {
        **{"length": 0.39, "sentences": 0.17, "material": 1.0, "material_lines": 0.46, "digits": 1.0},
        "quotation": 1.0,
    }
    assert _form("空はなぜ青い？") == {"length": 0.32, "sentences": 0.17, "ends_in_question": 1.0, "has_question": 1.0}


def test_a_text_without_words_or_of_great_length_has_features_between_0_and_1():
    features = form_features(["", "?!", "why " * 10_000 + "\n\n" + "line\n" * 1000])
    assert features.shape == (3, len(FORM))
    assert not features[0].any()
    assert features.min() >= 0
    assert features.max() <= 1


def test_words_count_a_fifth_beside_the_form():
    vectors = text_features(["Name a bird."], 32)
    assert vectors.shape == (1, len(FORM) + 32)
    assert np.linalg.norm(vectors[0, len(FORM) :]) == pytest.approx(0.2)
