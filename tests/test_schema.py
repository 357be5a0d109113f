import re

import pytest
from datasets import List, Value, load_dataset

from teamsrl_hf import Candidate, Example, Rejection, Review, Seed, Transition
from teamsrl_hf.cards import front_matter
from teamsrl_hf.schema import features, write_folder

SEED, OTHER = Seed("s1", "Name a bird.", "wren, owl"), Seed("s2", "List two rivers.")


def _candidate(seed, number, rewrite, **changes):
    transition = Transition(seed.text, "deepen", rewrite, Review("not_equal", (), "judge"), "writer")
    values = {"response": f"Answer {number}.", "responder": "answerer", "calls": (("answer", 1), ("rewrite", 1))}
    return Candidate(f"r{number}", seed, seed.id, number, ("deepen",), transition, **{**values, **changes})


RESULTS = [
    Example(_candidate(SEED, 0, "Name a bird of prey.\n\nwren, owl")),
    Rejection(_candidate(SEED, 1, "Name a bird.", response="", responder=""), "unchanged"),
    Example(_candidate(OTHER, 0, "List two rivers of Asia.")),
]


def _card(configs):
    return front_matter({"configs": configs})


@pytest.fixture
def folder(tmp_path):
    test = frozenset({"s2"})
    write_folder(tmp_path / "set", RESULTS, test, _card)
    return str(tmp_path / "set")


def test_load_dataset_gives_conversations_in_both_splits(folder):
    rows = load_dataset(folder)
    assert {split: len(part) for split, part in rows.items()} == {"train": 1, "test": 1}
    row = rows["train"][0]
    assert row["prompt"] == [{"role": "user", "content": "Name a bird of prey.\n\nwren, owl"}]
    assert row["completion"] == [{"role": "assistant", "content": "Answer 0."}]
    assert (row["seed_id"], row["parent_id"], row["step"]) == ("s1", "s1", 0)
    assert (row["operation"], row["operations"]) == ("deepen", ["deepen"])
    assert (row["verdict"], row["reviewer"], row["rewriter"]) == ("not_equal", "judge", "writer")
    assert row["calls"] == {"rewrite": 1, "review": 0, "answer": 1}


def test_trajectories_hold_rejections_with_their_reasons(folder):
    rows = load_dataset(folder, "trajectories")["train"]
    assert rows["accepted"][:] == [True, False]
    assert rows["reason"][:] == [None, "unchanged"]
    assert rows["seed_input"][:] == ["wren, owl", "wren, owl"]


def test_columns_have_exactly_the_declared_types(folder):
    for config in ("default", "trajectories"):
        assert load_dataset(folder, config)["train"].features == features()[config]
    assert features()["default"]["prompt"] == List({"role": Value("string"), "content": Value("string")})
    assert features()["default"]["step"] == Value("int32")


def test_rows_stream(folder):
    assert next(iter(load_dataset(folder, split="test", streaming=True)))["id"] == "r0"


def test_a_split_without_rows_has_no_file_and_the_rest_still_loads(tmp_path):
    write_folder(tmp_path, RESULTS[:2], frozenset(), _card)
    assert list(load_dataset(str(tmp_path))) == ["train"]


def test_a_set_where_all_was_rejected_still_holds_its_trajectories(tmp_path):
    rejected = RESULTS[1:2]
    write_folder(tmp_path, rejected, frozenset(), _card)
    assert len(load_dataset(str(tmp_path), "trajectories")["train"]) == 1


def test_writing_twice_gives_the_same_bytes_and_leaves_no_draft(tmp_path):
    contents = []
    for _ in range(2):
        write_folder(tmp_path, RESULTS, frozenset({"s2"}), _card)
        contents.append({str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()})
    assert contents[0] == contents[1]
    assert [re.sub(r"-[0-9a-f]{16}\b", "", name) for name in sorted(contents[0])] == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "trajectories/test-00000-of-00001.parquet",
        "trajectories/train-00000-of-00001.parquet",
    ]


def test_a_folder_written_anew_is_not_answered_from_the_cache_of_the_old(tmp_path):
    counts = []
    for results in (RESULTS[:1], RESULTS):
        write_folder(tmp_path, results, frozenset(), _card)
        counts.append(len(load_dataset(str(tmp_path))["train"]))
    assert counts == [1, 2]


def test_hostile_text_survives_the_round_trip(tmp_path):
    text = "---\n{{ 7 * 7 }} <script>alert(1)</script> ../../etc/passwd ‮ \\u0000 ``` " + "x" * 1_000_000
    results = [Example(_candidate(SEED, 0, text))]
    write_folder(tmp_path, results, frozenset(), _card)
    assert load_dataset(str(tmp_path))["train"][0]["prompt"][0]["content"] == text
