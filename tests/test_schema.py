import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import List, Value, load_dataset
from datasets.exceptions import DataFilesNotFoundError

from teamsrl_hf import Candidate, Example, Rejection, Review, Seed, Transition
from teamsrl_hf.publish.cards import front_matter
from teamsrl_hf.publish.dataset_writer import COLUMNS, DatasetWriter, _array, features, schemas
from teamsrl_hf.runs import open_run

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


def write_folder(folder, results, test_seeds=frozenset(), **limits):
    with DatasetWriter(folder, test_seeds, **limits) as writer:
        for result in results:
            writer.write([result])
        writer.finish(_card)


@pytest.fixture
def folder(tmp_path):
    test = frozenset({"s2"})
    write_folder(tmp_path / "set", RESULTS, test)
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
    assert row["calls"] == {"rewrite": 1, "review": 0, "answer": 1, "walk": 0}


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


def test_columns_are_built_as_arrow_builds_them_and_without_pandas(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import teamsrl_hf.publish.dataset_writer as schema
from teamsrl_hf import Candidate, Example, Rejection, Review, Seed, Transition

def result(i):
    review = Review("equal", tuple("ab")[: i % 3], "judge")
    seed = Seed(f"s{{i}}", chr(0x1F600 + i) + chr(0) + "x" * i, "")
    rewrite = Transition(seed.text, "deepen", "z" * i, review, "writer", [None, "HTTP 500"][i % 2])
    candidate = Candidate(f"r{{i}}", seed, seed.id, i, ("deepen",) * (i % 4), rewrite, calls=(("answer", i),))
    return Example(candidate) if i % 2 else Rejection(candidate, "equal")

results = [result(i) for i in range(100)]
with schema.DatasetWriter({str(tmp_path)!r}) as writer:
    writer.write(results)
    writer.finish(lambda configs: "")
assert "pandas" not in sys.modules

import pyarrow as pa
import pyarrow.parquet as pq
rows = dict(trajectories=map(schema.trajectory_row, results), default=map(schema.default_row, results[1::2]))
for config, folder in schema.CONFIGS.items():
    (file,) = writer.folder.glob(folder + "/*.parquet")
    assert pq.read_table(file) == pa.Table.from_pylist(list(rows[config]), schema=schema.schemas()[config])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("type", "values"),
    [
        (pa.float32(), [0.5, 1.5, None]),
        (pa.float64(), [0.1, -2.0, 1e300]),
        (pa.int64(), [7, None, 2**40]),
        (pa.int8(), [-128, 127]),
        (pa.uint16(), [65_535, None]),
        (pa.bool_(), [True, None, False]),
        (pa.list_(pa.float32()), [[0.25], [], [1.0, 2.0]]),
        (pa.struct({"share": pa.float64(), "name": pa.string()}), [{"share": 0.5, "name": None}]),
    ],
)
def test_a_column_of_any_number_type_is_written_as_arrow_writes_it(type, values):
    built = _array(values, type)
    built.validate(full=True)
    assert built.equals(pa.array(values, type=type))
    assert built.to_pylist() == values


@pytest.mark.parametrize(
    ("type", "values"), [(pa.date32(), [1]), (pa.int32(), [1.5]), (pa.int32(), ["one"]), (pa.timestamp("s"), [0])]
)
def test_a_column_that_cannot_be_written_right_is_refused(type, values):
    with pytest.raises(TypeError):
        _array(values, type)


def test_rows_stream(folder):
    assert next(iter(load_dataset(folder, split="test", streaming=True)))["id"] == "r0"


def test_a_split_without_rows_has_no_file_and_the_rest_still_loads(tmp_path):
    write_folder(tmp_path, RESULTS[:2])
    assert list(load_dataset(str(tmp_path))) == ["train"]


def test_a_set_where_all_was_rejected_still_holds_its_trajectories_and_they_are_not_taken_for_rows(tmp_path):
    open_run(tmp_path / "set", {})
    write_folder(tmp_path / "set", RESULTS[1:2])
    with pytest.raises(ValueError, match='Instruction "train" corresponds to no data!'):
        load_dataset(str(tmp_path / "set"))
    assert len(load_dataset(str(tmp_path / "set"), "trajectories")["train"]) == 1


def test_a_claimed_folder_loads_once_it_is_written_and_not_before(tmp_path):
    folder = str(tmp_path / "set")
    open_run(folder, {})
    with DatasetWriter(folder, group_rows=1) as writer:
        writer.write(RESULTS)
        with pytest.raises(DataFilesNotFoundError):
            load_dataset(folder)
    write_folder(folder, RESULTS)
    assert len(load_dataset(folder)["train"]) == 2


def test_writing_twice_gives_the_same_bytes_and_leaves_no_draft(tmp_path):
    contents = []
    for _ in range(2):
        write_folder(tmp_path, RESULTS, frozenset({"s2"}))
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
        write_folder(tmp_path, results)
        counts.append(len(load_dataset(str(tmp_path))["train"]))
    assert counts == [1, 2]


def test_hostile_text_survives_the_round_trip(tmp_path):
    text = "---\n{{ 7 * 7 }} <script>alert(1)</script> ../../etc/passwd ‮ \\u0000 ``` " + "x" * 1_000_000
    results = [Example(_candidate(SEED, 0, text))]
    write_folder(tmp_path, results)
    assert load_dataset(str(tmp_path))["train"][0]["prompt"][0]["content"] == text


def _many(count):
    return [Example(_candidate(SEED, i, f"Name bird {i}.")) for i in range(count)]


def _files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_long_split_becomes_several_shards_that_load_as_one(tmp_path):
    limits = {"group_rows": 10, "shard_size": 1_000}
    write_folder(tmp_path, _many(95), **limits)
    shards = sorted(file.name for file in (tmp_path / "data").iterdir())
    # 67 characters a row, or a few more: the thousandth falls into the second row group, which ends the shard.
    assert [re.sub(r"-[0-9a-f]{16}\b", "", name) for name in shards] == [
        f"train-{i:05}-of-00005.parquet" for i in range(5)
    ]
    assert [pq.ParquetFile(tmp_path / "data" / name).metadata.num_rows for name in shards] == [20, 20, 20, 20, 15]
    assert pq.ParquetFile(tmp_path / "data" / shards[0]).metadata.num_row_groups == 2
    assert load_dataset(str(tmp_path))["train"]["id"][:] == [f"r{i}" for i in range(95)]
    assert len(load_dataset(str(tmp_path), "trajectories")["train"]) == 95


def test_how_results_come_in_changes_no_byte(tmp_path):
    limits = {"group_rows": 10, "shard_size": 1_000}
    write_folder(tmp_path / "one", _many(40), **limits)
    with DatasetWriter(tmp_path / "other", **limits) as writer:
        for start, end in ((0, 3), (3, 3), (3, 27), (27, 40)):
            writer.write(_many(40)[start:end])
        writer.finish(_card)
    assert _files(tmp_path / "one") == _files(tmp_path / "other")


def test_the_types_written_down_by_hand_are_those_that_datasets_would_write():
    for config, expected in features().items():
        assert schemas()[config].equals(expected.arrow_schema, check_metadata=True)


def test_until_all_is_written_the_folder_keeps_what_it_had(tmp_path):
    write_folder(tmp_path, RESULTS[:1])
    before = _files(tmp_path)
    with DatasetWriter(tmp_path, group_rows=2) as writer:
        writer.write(_many(5))
        during = _files(tmp_path)
    assert {name: content for name, content in during.items() if not name.startswith(".writing/")} == before
    assert any(name.startswith(".writing/data/") for name in during)
    # Left without `finish`, as by an exception: the draft is gone too.
    assert _files(tmp_path) == before


def test_a_draft_that_a_killed_run_left_is_not_taken_over(tmp_path):
    DatasetWriter(tmp_path, group_rows=1).write(_many(3))
    write_folder(tmp_path, RESULTS[:1])
    assert load_dataset(str(tmp_path))["train"]["id"][:] == ["r0"]
    assert not (tmp_path / ".writing").exists()


def test_a_full_disk_is_an_os_error_and_leaves_no_draft(tmp_path):
    script = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_schema import _card, _many
from teamsrl_hf.publish.dataset_writer import DatasetWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    with DatasetWriter(sys.argv[1], group_rows=10) as writer:
        writer.write(_many(2_000))
        writer.finish(_card)
except OSError as error:
    print("told:", error)
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("told: "), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_column_is_explained_once_and_none_that_is_not_there():
    assert set(COLUMNS) == {name for schema in schemas().values() for name in schema.names}
