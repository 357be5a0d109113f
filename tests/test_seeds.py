import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from teamsrl_hf.text.seeds import BUILT_IN, load_seeds, seed_from_row, seed_id, seeds_to_dataset, split_seeds
from teamsrl_hf.text.tables import ENDINGS
from teamsrl_hf.types import Seed

ROWS = [
    {"instruction": "Sort these numbers.", "input": "3, 1, 2"},
    {"instruction": "Why is the sky blue?", "input": ""},
    {"instruction": 'Explain the "if" here,\nline by line.', "input": "if a:\n\tprint('ü, 漢')\n"},
]
IDS = ["s0dace05e9f3c", "se97e21c34e63", "sd9c6ef8f3b6e"]  # as coreutils has it: b2sum -l 48


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_jsonl(path, rows):
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def ids(source, **options):
    return [seed.id for seed in load_seeds(str(source), **options)]


def refusal(source, **options):
    """The message with which a source is refused, checked to be one line that opens with the source's name."""
    with pytest.raises(ValueError) as caught:
        load_seeds(str(source), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.removeprefix("'").startswith(str(source)[:200])
    return message.removeprefix(str(source))


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, with its cache inside this test's folder and no bars."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


# The built-in set


def built_in():
    return [json.loads(line) for line in BUILT_IN.read_text(encoding="utf-8").splitlines()]


def words(text):
    return frozenset(re.findall(r"\w+", text.lower()))


def test_the_built_in_seeds_load_by_default_with_the_ids_their_file_gives():
    seeds = load_seeds()
    assert [seed.id for seed in seeds] == [row["id"] for row in built_in()]
    assert len(seeds) >= 240


def test_the_built_in_rows_have_four_keys_and_nothing_to_trim():
    for row in built_in():
        assert list(row) == ["id", "instruction", "input", "domain"]
        assert all(value == value.strip("\n ") for value in row.values())
        assert row["instruction"]


def test_the_built_in_seeds_spread_over_many_domains():
    domains = Counter(row["domain"] for row in built_in())
    assert len(domains) >= 16
    assert min(domains.values()) >= 8
    assert max(domains.values()) <= 0.08 * domains.total()


def test_about_two_in_five_built_in_seeds_have_an_input():
    rows = built_in()
    assert 0.35 <= sum(bool(row["input"]) for row in rows) / len(rows) <= 0.45


def test_built_in_seeds_are_short_and_long():
    lengths = [len(seed.text.split()) for seed in load_seeds()]
    assert sum(length <= 10 for length in lengths) >= 30
    assert sum(length >= 50 for length in lengths) >= 30


def test_built_in_seeds_do_not_all_open_alike():
    firsts = Counter(row["instruction"].split()[0].lower() for row in built_in())
    assert len(firsts) >= 80
    assert firsts.most_common(1)[0][1] <= 0.1 * firsts.total()


def test_no_two_built_in_seeds_are_near_duplicates():
    for texts in ([seed.text for seed in load_seeds()], [seed.instruction for seed in load_seeds()]):
        bags = [words(text) for text in texts]
        assert max(len(a & b) / len(a | b) for a, b in combinations(bags, 2)) < 0.7


# Ids


def test_an_id_depends_on_instruction_and_input_only():
    assert seed_id("Sort these numbers.", "3, 1, 2") == "s0dace05e9f3c"
    assert seed_id("Sort these numbers.", "3, 1") != "s0dace05e9f3c"
    assert seed_id("Sort these numbers.3, 1, 2", "") != "s0dace05e9f3c"


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL"])
def test_jsonl_gives_seeds_in_file_order(tmp_path, name):
    seeds = load_seeds(str(write_jsonl(tmp_path / name, ROWS)))
    assert seeds == [Seed(id, row["instruction"], row["input"]) for id, row in zip(IDS, ROWS)]


def test_json_csv_and_tsv_give_the_same_ids(tmp_path):
    assert ids(write(tmp_path / "a.json", json.dumps(ROWS, indent=2))) == IDS
    assert ids(write_csv(tmp_path / "a.csv", ROWS)) == IDS
    assert ids(write_csv(tmp_path / "a.tsv", ROWS, delimiter="\t")) == IDS


def test_parquet_and_folders_give_the_same_ids(tmp_path, datasets):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "a.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=dataset, test=dataset.select([1])).save_to_disk(tmp_path / "splits")
    (tmp_path / "json").mkdir()
    write_jsonl(tmp_path / "json" / "train.jsonl", ROWS)
    for source in ("a.parquet", "saved", "splits", "json"):
        assert ids(tmp_path / source) == IDS
    assert ids(tmp_path / "splits", split="test") == IDS[1:2]


def test_a_folder_named_like_a_file_format_is_still_a_folder(tmp_path, datasets, monkeypatch):
    (tmp_path / "csv").mkdir()
    write_jsonl(tmp_path / "csv" / "train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert ids("csv") == IDS


def test_a_saved_dataset_keeps_its_order_and_its_format_does_not_matter(tmp_path, datasets):
    dataset = datasets.Dataset.from_list(ROWS).select([2, 0])
    dataset.with_format("pandas").save_to_disk(tmp_path / "saved")
    assert ids(tmp_path / "saved") == [IDS[2], IDS[0]]


def test_a_byte_order_mark_is_accepted(tmp_path):
    for name in ("a.jsonl", "a.json", "a.csv"):
        plain = {"a.jsonl": write_jsonl, "a.csv": write_csv}.get(name)
        path = plain(tmp_path / name, ROWS) if plain else write(tmp_path / name, json.dumps(ROWS))
        write(path, b"\xef\xbb\xbf" + path.read_bytes())
        assert ids(path) == IDS


def test_windows_line_ends_change_no_id(tmp_path):
    for path in (write_jsonl(tmp_path / "a.jsonl", ROWS), write_csv(tmp_path / "a.csv", ROWS)):
        write(path, path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        assert ids(path) == IDS


def test_instructions_are_stripped_and_blank_or_null_inputs_are_empty(tmp_path):
    rows = [
        {"instruction": "  Sort.\n", "input": None},
        {"instruction": "Count.", "input": " \n"},
        {"instruction": "Add."},
    ]
    seeds = load_seeds(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert [(seed.instruction, seed.input) for seed in seeds] == [("Sort.", ""), ("Count.", ""), ("Add.", "")]


def test_the_indentation_of_an_input_is_kept(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Mend it.", "input": "    return 1\n"}])
    assert load_seeds(str(path))[0].input == "    return 1\n"


def test_lists_and_lines_of_plain_strings_are_instructions(tmp_path):
    wanted = ["Sort.", "Count."]
    for path in (
        write(tmp_path / "a.json", '["Sort.", "Count."]'),
        write(tmp_path / "a.jsonl", '"Sort."\n"Count."\n'),
    ):
        assert [seed.instruction for seed in load_seeds(str(path))] == wanted
        assert [seed.instruction for seed in load_seeds(str(path), seed_column="prompt")] == wanted


def test_other_column_names_can_be_given_and_other_columns_are_ignored(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 7, "task": "Sort.", "given": "3, 1", "output": ["1, 3"]}])
    assert load_seeds(str(path), "task", "given") == [Seed(seed_id("Sort.", "3, 1"), "Sort.", "3, 1")]
    assert load_seeds(str(path), "task") == [Seed(seed_id("Sort.", ""), "Sort.", "")]


def test_a_column_called_input_may_hold_the_instructions(tmp_path):
    assert load_seeds(str(write_jsonl(tmp_path / "a.jsonl", [{"input": "Sort."}])), "input")[0].text == "Sort."


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Say\u2028this."}, {"instruction": 3}])
    assert "line 2" in refusal(path)


def test_the_readme_names_the_endings_of_files_that_can_be_read():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"({', '.join(f'`{ending}`' for ending in ENDINGS)}, a `datasets` folder" in readme


# Refusals, one for each kind of source


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "no.jsonl").endswith(
        "no such file or folder, and no Hub dataset such as 'owner/name'; check the path."
    )
    assert "and no Hub dataset" in refusal("owner/no.csv")


@pytest.mark.parametrize("source", ["a/b/c", "what is this?", "", "Sort these numbers. " * 1000])
def test_a_name_that_is_neither_path_nor_hub_id_is_refused(source):
    assert "no such file or folder, and no Hub dataset" in refusal(source)


def test_a_hub_dataset_without_a_connection_is_one_line():
    code = "from teamsrl_hf import load_seeds\ntry: load_seeds('owner/seeds')\nexcept ValueError as e: print(e)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "owner/seeds: there is no such file or folder here, and as a dataset of the Hub it can't be loaded (Couldn't "
        "reach 'owner/seeds' on the Hub (OfflineModeIsEnabled)); check the path or name, the split, the connection.\n"
    )


def test_an_unknown_file_ending_lists_the_known_ones(tmp_path):
    assert refusal(write(tmp_path / "seeds.xlsx", "x")) == (
        ": files ending in '.xlsx' can't be read; convert it to one of .jsonl, .json, .csv, .tsv, .parquet."
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("content", ["", "\n \n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, name, content):
    assert refusal(write(tmp_path / name, content)) == ": is empty; give a source with at least one seed."


def test_an_empty_list_and_a_table_of_headers_are_refused(tmp_path, datasets):
    assert refusal(write(tmp_path / "a.json", "[]")) == ": is empty; give a source with at least one seed."
    wanted = ": has the column 'instruction' but no row; give a source with at least one seed."
    assert refusal(write(tmp_path / "a.csv", "instruction,input\n")) == wanted
    seeds_to_dataset([]).to_parquet(tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet") == wanted


def test_a_line_that_is_no_json_is_named_by_its_number(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"instruction": "Sort."}\n\n{"instruction": "Count."\n')
    assert refusal(path) == ", line 3: broken JSON (Expecting ',' delimiter at column 25); mend the line or remove it."


def test_broken_json_in_a_list_is_named_by_its_line(tmp_path):
    path = write(tmp_path / "a.json", '[\n  "Sort.",\n  "Count."\n  "Add."\n]')
    assert refusal(path) == ", line 4: broken JSON (Expecting ',' delimiter at column 3); mend the line or remove it."


def test_json_lines_called_json_are_told_their_ending(tmp_path):
    path = write(tmp_path / "a.json", '{"instruction": "Sort."}\n{"instruction": "Count."}\n')
    assert refusal(path).endswith("a file with one value a line has to end in .jsonl.")


def test_json_beyond_what_python_reads_is_refused(tmp_path):
    assert refusal(write(tmp_path / "a.jsonl", '"Sort."\n' + "[" * 200_000)).startswith(
        ", line 2: JSON that can't be read"
    )
    assert refusal(write(tmp_path / "a.json", "[" + "1" * 5_000 + "]")).startswith(": JSON that can't be read")


def test_json_that_is_no_list_or_holds_no_objects_is_refused(tmp_path):
    wanted = ": holds an object, wanted a list of objects or of strings; wrap it in [ ]."
    assert refusal(write(tmp_path / "a.json", '{"data": ["Sort."]}')) == wanted
    path = write(tmp_path / "a.json", '["Sort.", 5]')
    assert refusal(path) == ", row 2: is a value of type int, wanted an object with the key 'instruction' or a string."
    path = write(tmp_path / "a.jsonl", '"Sort."\n\n["Count."]\n')
    assert (
        refusal(path) == ", line 3: is a value of type list, wanted an object with the key 'instruction' or a string."
    )


def test_a_missing_column_lists_those_there_are(tmp_path, datasets):
    rows = [{"prompt": "Sort.", "answer": "ok"}]
    wanted = ": has no column 'instruction', only 'prompt', 'answer'; name the right one with --seed_column."
    write_jsonl(tmp_path / "a.jsonl", rows)
    write(tmp_path / "a.json", json.dumps(rows))
    write_csv(tmp_path / "a.csv", rows)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for source in ("a.jsonl", "a.json", "a.csv", "a.parquet", "saved"):
        assert refusal(tmp_path / source) == wanted


def test_an_input_column_that_was_named_must_exist(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort."}])
    assert load_seeds(str(path))[0].input == ""
    assert refusal(path, input_column="context") == (
        ": has no column 'context', only 'instruction'; name the right one with --input_column."
    )
    assert "--input_column" in refusal(path, input_column="input")


def test_one_column_can_not_be_both_instruction_and_input():
    with pytest.raises(ValueError, match="--seed_column and --input_column are both 'text'; leave --input_column out"):
        load_seeds(None, "text", "text")


def test_two_columns_of_the_same_name_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", "instruction,instruction\nSort.,Count.\n")
    assert refusal(path) == ": has 2 columns called 'instruction'; rename all but one."


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (5, "a value of type int"),
        (True, "a boolean"),
        (["a"], "a value of type list"),
        ({}, "an object"),
    ],
)
def test_a_cell_that_is_no_string_is_named_with_its_type(tmp_path, value, kind):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort."}, {"instruction": value}])
    assert refusal(path) == f", line 2: 'instruction' is {kind}, wanted a string; quote it, or name a column of text."


def test_a_cell_that_is_no_string_is_refused_in_inputs_and_parquet_too(tmp_path, datasets):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort.", "input": [3, 1]}])
    assert refusal(path).startswith(", line 1: 'input' is a value of type list")
    datasets.Dataset.from_dict({"instruction": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").startswith(", row 1: 'instruction' is a value of type int")


def test_an_empty_instruction_is_named_by_its_place(tmp_path):
    path = write(tmp_path / "a.csv", 'instruction,input\n"Sort\nthis.",3\n" ",4\n')
    assert refusal(path) == ", row 2 (line 4): 'instruction' is empty; write an instruction or remove the row."
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort."}, {"instruction": ""}])
    assert refusal(path) == ", line 2: 'instruction' is empty; write an instruction or remove the row."


def test_a_text_beyond_the_limit_is_refused_with_both_lengths(tmp_path):
    wanted = (
        ", line 2: 'instruction' has 200,000 characters, at most 20,000 are wanted; shorten it, remove the row, or "
        "raise max_characters."
    )
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort."}, {"instruction": "x" * 200_000}])
    assert refusal(path) == wanted
    assert len(load_seeds(str(path), max_characters=200_000)) == 2
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"instruction": "Sort."}, {"instruction": "Count.", "input": "x" * 20_001}]
    )
    assert refusal(path).startswith(", line 2: 'input' has 20,001 characters")


def test_a_csv_field_beyond_the_limit_of_the_csv_module_is_merely_too_long(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{"instruction": "x" * 200_000, "output": ""}])
    assert refusal(path).startswith(", row 1 (line 2): 'instruction' has 200,000 characters")
    path = write_csv(tmp_path / "a.csv", [{"instruction": "Sort.", "output": "x" * 200_000}])
    assert len(load_seeds(str(path))) == 1
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize("column", ["instruction", "input"])
def test_null_bytes_and_lone_surrogates_are_refused(tmp_path, column):
    row = {"instruction": "Sort.", "input": "3"}
    path = write(tmp_path / "a.jsonl", json.dumps({**row, column: "a\0b"}))
    assert refusal(path) == (
        f", line 1: {column!r} holds a null byte; remove it (the file may be damaged or not be text)."
    )
    path = write(tmp_path / "a.jsonl", json.dumps({**row, column: "a\ud83d"}))
    assert refusal(path) == f", line 1: {column!r} holds half a character (lone surrogate U+D83D); remove it."
    assert "null byte" in refusal(write_csv(tmp_path / "a.csv", [{**row, column: "a\0b"}]))


def test_an_escaped_pair_of_surrogates_is_a_character(tmp_path):
    assert load_seeds(str(write(tmp_path / "a.jsonl", '"What is \\ud83d\\ude00?"')))[0].instruction == "What is 😀?"


@pytest.mark.parametrize(
    "token",
    [
        *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|eot_id|>", "<|turn>", "<turn|>"),
        *("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "[TOOL_CALLS]", "<｜end▁of▁sentence｜>"),
        *("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
    ],
)
def test_control_tokens_are_refused_in_both_columns(tmp_path, token):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": f"Sort.{token}system"}])
    assert f", line 1: 'instruction' holds {token!r}, which tokenizers read as a control token" in refusal(path)
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort.", "input": token}])
    assert f"'input' holds {token!r}" in refusal(path)


def test_struck_through_html_is_told_of_del(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "What does <s>this</s> look like?"}])
    assert refusal(path).endswith("remove it or spell it differently; for struck-through text write <del>.")


@pytest.mark.parametrize(
    "text",
    [
        *("Is <b>this</b> bold?", "<script>alert(1)</script>", "<strong>", "<S>", '<s class="x">', "<sup>2</sup>"),
        *(
            "a <| b |> c",
            "f <|> g",
            "a[INSTANCE]",
            "<del>",
            "x < s > y",
            "<!-- | -->",
            "data |> filter",
            "[0]",
            "Set<T>",
        ),
    ],
)
def test_html_and_code_are_no_control_tokens(tmp_path, text):
    assert load_seeds(str(write_jsonl(tmp_path / "a.jsonl", [{"instruction": text}])))[0].instruction == text


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_a_file_that_is_not_utf_8_is_named_with_the_line(tmp_path, name):
    assert refusal(write(tmp_path / name, b"\xef\xbb\xbfinstruction\n\xe9t\xe9\n")) == (
        ", line 2: isn't UTF-8 (invalid continuation byte); save the file as UTF-8."
    )


def test_duplicates_name_both_places_and_can_be_dropped(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], ROWS[1], {**ROWS[0], "instruction": "Sort these numbers. "}])
    assert refusal(path) == (
        ", line 3: is the same seed as line 1; remove one of them, or pass --drop_duplicate_seeds (drop_duplicates="
        "True) to keep the first."
    )
    assert ids(path, drop_duplicates=True) == IDS[:2]


def test_equal_instructions_with_different_inputs_are_different_seeds(tmp_path):
    assert len(ids(write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[0], "input": "4, 5"}]))) == 2


def test_csv_rows_of_the_wrong_width_and_open_quotes_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", "instruction,input\nSort, please.,3,1\n")
    assert refusal(path) == (
        ", row 1 (line 2): has 4 fields where the header has 2; put double quotes around fields that hold a delimiter "
        "or a line break."
    )
    path = write(tmp_path / "a.csv", 'instruction,input\nSort.,3\n"Count.,4\nAdd.,5\n')
    assert refusal(path) == (
        ", row 2, near line 4: the quotes don't match (unexpected end of data); write a double quote inside a quoted "
        "field twice."
    )


def test_a_corrupt_parquet_file_is_refused(tmp_path, datasets):
    path = tmp_path / "a.parquet"
    assert refusal(write(path, b"")).startswith(": isn't a whole parquet file (")
    datasets.Dataset.from_list(ROWS).to_parquet(path)
    assert refusal(write(path, path.read_bytes()[:-20])).endswith("; write it or fetch it again.")


def test_folders_that_hold_no_dataset_are_refused(tmp_path, datasets):
    (tmp_path / "empty").mkdir()
    assert "doesn't contain any data files" in refusal(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    write(tmp_path / "broken" / "train.jsonl", '{"instruction": "Sort."}\n{"instr')
    assert "JSON parse error" in refusal(tmp_path / "broken")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    assert refusal(tmp_path / "saved").startswith(": this saved dataset is damaged (")


def test_a_folder_with_a_script_is_refused_and_the_script_never_runs(tmp_path, datasets):
    (tmp_path / "script").mkdir()
    write(tmp_path / "script" / "script.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "scripts are no longer supported" in refusal(tmp_path / "script")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_split_lists_those_there_are(tmp_path, datasets):
    dataset = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "splits")
    assert refusal(tmp_path / "splits", split="dev") == ": has no split 'dev', only 'train', 'test'; name one of them."
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS)
    assert "Unknown split" in refusal(tmp_path / "data", split="dev")
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert refusal(path, split="test") == (
        ": is one file and has no split 'test'; leave split out, or give that split's file."
    )


# Splits and rows


def test_a_split_keeps_order_and_loses_nothing():
    seeds = load_seeds()
    train, test = split_seeds(seeds)
    assert [seed for seed in seeds if seed in train] == train
    assert [seed for seed in seeds if seed in test] == test
    assert len(train) + len(test) == len(seeds)
    assert 0.06 <= len(test) / len(seeds) <= 0.14


def test_adding_seeds_moves_no_other():
    seeds = load_seeds()
    _, few = split_seeds(seeds[::2])
    _, many = split_seeds(seeds)
    assert few == [seed for seed in many if seed in seeds[::2]]
    assert split_seeds(seeds[::-1])[1] == many[::-1]


def test_a_larger_test_share_contains_the_smaller():
    seeds = load_seeds()
    assert set(split_seeds(seeds, 0.1)[1]) < set(split_seeds(seeds, 0.3)[1])


@pytest.mark.parametrize("test_size", [0.001, 0.5, 0.999])
def test_two_seeds_give_one_for_each_side(test_size):
    seeds = load_seeds()[:2]
    train, test = split_seeds(seeds, test_size)
    assert len(train) == len(test) == 1


def test_nothing_is_held_out_of_one_seed_or_for_a_share_of_nothing():
    seeds = load_seeds()
    assert split_seeds(seeds, 0) == (seeds, [])
    assert split_seeds(seeds[:1], 0.9) == (seeds[:1], [])
    assert split_seeds([], 0.5) == ([], [])


@pytest.mark.parametrize("test_size", [-0.1, 1, 1.5, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(test_size):
    with pytest.raises(ValueError, match="wanted a share from 0"):
        split_seeds(load_seeds(), test_size)


def test_seeds_survive_a_dataset():
    seeds = load_seeds()[:5]
    dataset = seeds_to_dataset(seeds)
    assert dataset.column_names == ["id", "instruction", "input"]
    assert [seed_from_row(row) for row in dataset] == seeds
    assert seeds_to_dataset([]).features == dataset.features


def test_a_row_without_a_text_id_or_input_gets_the_id_of_its_content():
    wanted = Seed(seed_id("Sort.", ""), "Sort.", "")
    assert seed_from_row({"instruction": "Sort."}) == wanted
    assert seed_from_row({"id": 3, "instruction": "Sort.", "input": None}) == wanted


def test_reading_files_loads_no_heavy_library(tmp_path):
    path = write_csv(tmp_path / "a.csv", ROWS)
    code = (
        "import sys; from teamsrl_hf.text.seeds import load_seeds, split_seeds\n"
        "split_seeds(load_seeds(sys.argv[1]) + load_seeds())\n"
        "print({'torch', 'datasets', 'pyarrow', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_folder_whose_rows_changed_is_not_answered_from_a_cache(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.jsonl\n---\n"
    )
    for bird in ("wren", "owl"):
        (folder / "train.jsonl").write_text(
            json.dumps({"instruction": f"Describe the {bird} in one sentence."}) + "\n"
        )
        assert [seed.instruction for seed in load_seeds(str(folder))] == [f"Describe the {bird} in one sentence."]


# Nested inputs and conversations


NESTED = [
    [{"input": "The boat leaves at nine.", "output": "x"}, {"input": "Where is it?", "output": "y"}],
    {"input": ["The boat leaves at nine.", "Where is it?"], "output": ["x", "y"]},
    ["The boat leaves at nine.", "Where is it?"],
    [{"Input": "The boat leaves at nine."}, {"Input": "Where is it?"}, {"Input": "Where is it?"}],
]


@pytest.mark.parametrize("column", ["instances", "inputs", "input", "context", "Instances"])
@pytest.mark.parametrize("nested", NESTED)
def test_each_distinct_input_of_a_row_gives_a_seed(tmp_path, column, nested):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Translate.", column: nested}])
    assert [(seed.instruction, seed.input) for seed in load_seeds(str(path))] == [
        ("Translate.", "The boat leaves at nine."),
        ("Translate.", "Where is it?"),
    ]


def test_nested_inputs_are_read_from_parquet_and_folders_and_from_a_column_of_any_name(tmp_path, datasets):
    rows = [{"instruction": "Translate.", "tasks": [{"input": "A boat.", "output": "x"}]}, {"instruction": "Sort."}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    write_jsonl(tmp_path / "a.jsonl", rows)
    write(tmp_path / "a.json", json.dumps(rows))
    for source in ("a.parquet", "saved", "a.jsonl", "a.json"):
        assert [seed.text for seed in load_seeds(str(tmp_path / source))] == ["Translate.\n\nA boat.", "Sort."]


def test_tasks_of_one_instruction_and_nested_inputs_are_different_seeds(tmp_path):
    rows = [
        {"instruction": "Translate.", "instances": [{"input": text, "output": ""}]} for text in ("A boat.", "Sun.")
    ]
    assert [seed.input for seed in load_seeds(str(write_jsonl(tmp_path / "a.jsonl", rows)))] == ["A boat.", "Sun."]


@pytest.mark.parametrize("empty", [None, "", " \n", [], [{"input": "", "output": "x"}], [{"input": None}], {}])
def test_an_instance_without_an_input_is_a_seed_without_one(tmp_path, empty):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort.", "instances": empty}])
    assert load_seeds(str(path)) == [Seed(seed_id("Sort.", ""), "Sort.")]


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ([3, 1], "a value of type list"),
        ({"title": "Boats", "text": "They float."}, "an object with the keys 'title', 'text'"),
        ([{"given": "A boat."}], "a value of type list"),
        ([{"input": {"text": "A boat."}}], "a value of type list"),
        ([["A boat."]], "a value of type list"),
        (7, "a value of type int"),
        (0, "a value of type int"),
        (False, "a boolean"),
    ],
)
def test_inputs_in_a_form_that_is_not_understood_are_refused_by_name(tmp_path, cell, named):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort.", "context": cell}])
    assert refusal(path) == (
        f", line 1: 'context' is {named}, wanted a string, strings, or objects with the key 'input'; name such a "
        "column with --input_column, or none with --input_column ''."
    )
    assert load_seeds(str(path), input_column="") == [Seed(seed_id("Sort.", ""), "Sort.")]


def test_two_columns_that_hold_inputs_are_refused_by_name_until_one_is_named(tmp_path):
    row = {"instruction": "Sort.", "input": "3, 1", "context": "Numbers.", "instances": [{"input": ""}]}
    path = write_jsonl(tmp_path / "a.jsonl", [{**row, "input": "", "context": " "}, row])
    assert refusal(path) == (
        ", line 2: has inputs in 'input' and in 'context'; name one with --input_column, or none with "
        "--input_column ''."
    )
    assert [seed.input for seed in load_seeds(str(path), input_column="context")] == ["", "Numbers."]
    assert [seed.input for seed in load_seeds(str(path), input_column="", drop_duplicates=True)] == [""]


def test_equal_seeds_are_told_of_the_columns_that_may_tell_them_apart(tmp_path):
    rows = [{"id": n, "instruction": "Translate.", "sentence": text} for n, text in enumerate(("A boat.", "Sun."))]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert refusal(path).endswith(
        "to keep the first. If the column 'id' or 'sentence' tells them apart, name it with --input_column."
    )
    assert [seed.input for seed in load_seeds(str(path), input_column="sentence")] == ["A boat.", "Sun."]


OPENAI = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Why?"},
    {"role": "user", "content": "?"},
]
SHAREGPT = [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]


@pytest.mark.parametrize(
    "turns", [OPENAI, SHAREGPT, [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]]
)
def test_a_conversation_gives_its_first_user_turn(tmp_path, datasets, turns):
    columns = ("messages", "conversations")
    for column in columns:
        rows = [{column: turns, "id": 1}]
        write_jsonl(tmp_path / "a.jsonl", rows)
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
        for source in ("a.jsonl", "a.parquet"):
            assert load_seeds(str(tmp_path / source)) == [Seed(seed_id("Why?", ""), "Why?")]
    lists = {key: [turn[key] for turn in turns] for key in turns[0]}
    for cell in (turns, lists):
        path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": cell, "instruction": "Never read."}])
        assert [seed.text for seed in load_seeds(str(path), "prompt")] == ["Why?"]


def test_conversations_and_instances_are_read_from_tables_of_text(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{"messages": json.dumps(OPENAI)}, {"messages": "[1] is a note."}])
    assert [seed.text for seed in load_seeds(str(path))] == ["Why?", "[1] is a note."]
    path = write_csv(tmp_path / "a.csv", [{"instruction": "Translate.", "instances": json.dumps(NESTED[0])}])
    assert [seed.input for seed in load_seeds(str(path))] == ["The boat leaves at nine.", "Where is it?"]


def test_an_instruction_goes_before_a_conversation_and_material_beside_one_is_read(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sort.", "messages": OPENAI}])
    assert [seed.text for seed in load_seeds(str(path))] == ["Sort."]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": OPENAI, "context": "The sky is blue."}])
    assert [seed.text for seed in load_seeds(str(path))] == ["Why?\n\nThe sky is blue."]


@pytest.mark.parametrize(
    ("turns", "named"),
    [
        (OPENAI[:1], "is a conversation without a turn of a user; remove the row."),
        ([{"role": "user", "content": None}], "is null, wanted a string; quote it, or name a column of text."),
        ([{"role": "user", "content": " "}], "is empty; write an instruction or remove the row."),
        ([], "is a value of type list, wanted a string; quote it, or name a column of text."),
        (
            [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url"}]}],
            "holds a part of type 'image_url', and a seed is text alone; remove the row.",
        ),
        (
            [{"from": "human", "value": "<image>\nWhat is it?"}],
            "holds <image>, and a seed is text alone; remove the row.",
        ),
    ],
)
def test_a_conversation_that_gives_no_text_is_refused_by_name(tmp_path, turns, named):
    assert refusal(write_jsonl(tmp_path / "a.jsonl", [{"messages": turns}])) == f", line 1: 'messages' {named}"


# Rows that are left out


BAD = [
    ('{"instruction": "Sort.", "input": "3, 1"}', None),
    ('{"instruction": "Count', "broken row"),
    ('["Sort."]', "broken row"),
    ('{"instruction": 5}', "no text"),
    ('{"instruction": " "}', "empty instruction"),
    ('{"instruction": "%s"}' % ("x" * 20_001), "too long"),
    ('{"instruction": "a\\u0000b"}', "null byte"),
    ('{"instruction": "a\\ud83d"}', "half a character"),
    ('{"instruction": "Sort.<|im_end|>"}', "control token"),
    ('{"instruction": [{"role": "system", "content": "x"}]}', "no user turn"),
    ('{"instruction": [{"role": "user", "content": [{"type": "image"}]}]}', "more than text"),
    ('{"instruction": "Sort.", "input": "3", "context": "4"}', "several input columns"),
    ('{"instruction": "Sort.", "input": "3, 1"}', "same as an earlier one"),
    ('{"instruction": "Name a bird."}', None),
]


def test_bad_rows_are_left_out_counted_and_told_in_one_line(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", "\n".join(line for line, _ in BAD))
    for row, (line, problem) in enumerate(BAD):
        if problem and problem != "same as an earlier one":
            assert refusal(write(tmp_path / "b.jsonl", line)).startswith(", line 1: "), row
    left_out = Counter()
    seeds = load_seeds(str(path), skip_bad=True, left_out=left_out)
    assert [seed.text for seed in seeds] == ["Sort.\n\n3, 1", "Name a bird."]
    assert left_out == Counter(problem for _, problem in BAD if problem)
    assert caplog.messages == [
        f"{path}: rows left out: 12 (broken row 2, no text 1, empty instruction 1, too long 1, null byte 1, half a "
        "character 1, control token 1, no user turn 1, more than text 1, several input columns 1, same as an earlier "
        f"one 1). The first: {path}, line 2: broken JSON (Unterminated string starting at at column 17); mend the "
        "line or remove it."
    ]


def test_bad_rows_of_a_table_are_left_out_too(tmp_path, datasets):
    path = write(tmp_path / "a.csv", "instruction,input\nSort.,3\nSort, please.,3,1\n ,4\nCount.,5\n")
    assert [seed.text for seed in load_seeds(str(path), skip_bad=True)] == ["Sort.\n\n3", "Count.\n\n5"]
    rows = [
        {"instruction": "Sort."},
        {"instruction": None},
        {"instruction": "Name </s> it."},
        {"instruction": "Count."},
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    assert [seed.text for seed in load_seeds(str(tmp_path / "saved"), skip_bad=True)] == ["Sort.", "Count."]


def test_dropped_duplicates_are_told_and_other_bad_rows_still_refused(tmp_path, caplog):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], ROWS[0], ROWS[1]])
    assert ids(path, drop_duplicates=True) == IDS[:2]
    assert caplog.messages[0].startswith(f"{path}: rows left out: 1 (same as an earlier one 1). The first: ")
    assert "is empty" in refusal(write_jsonl(path, [ROWS[0], {"instruction": ""}]), drop_duplicates=True)


def test_a_source_without_any_good_row_is_refused_although_bad_ones_may_be_left_out(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": ""}, {"instruction": 5}])
    assert refusal(path, skip_bad=True) == (
        f": no row gives a seed (empty instruction 1, no text 1). The first: {path}, line 1: 'instruction' is empty; "
        "write an instruction or remove the row."
    )


# Configurations and splits


def test_a_configuration_and_a_split_of_a_folder_are_read(tmp_path, datasets):
    folder = tmp_path / "set"
    for config, split in (("main", "train"), ("main", "dev"), ("hard", "train")):
        (folder / config).mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / config / f"{split}.jsonl", [{"instruction": f"Sort {config} {split}."}])
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {config}/{split}.jsonl\n" for split in splits)
        for config, splits in (("main", ("train", "dev")), ("hard", ("train",)))
    )
    write(folder / "README.md", f"---\nconfigs:\n{configs}---\n")
    texts = {
        options: load_seeds(str(folder), config=options[0], split=options[1])[0].text
        for options in (("main", "train"), ("main", "dev"), ("hard", "train"))
    }
    assert list(texts.values()) == ["Sort main train.", "Sort main dev.", "Sort hard train."]
    assert refusal(folder, config="easy").startswith(": this folder is no dataset with the configuration 'easy' (")
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert refusal(path, config="main") == ": is one file and has no configuration 'main'; leave it out."
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert refusal(tmp_path / "saved", config="main") == (
        ": is a saved dataset and has no configuration 'main'; leave it out."
    )


def test_a_configuration_and_a_split_of_a_hub_dataset_are_asked_for(datasets, monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return datasets.Dataset.from_list(ROWS[:1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert ids("owner/set", config="hard", split="dev") == ids("owner/set") == IDS[:1]
    assert asked == [(("owner/set", "hard"), {"split": "dev"}), (("owner/set", None), {"split": "train"})]


def test_control_characters_in_names_are_shown_escaped(tmp_path):
    path = write_jsonl(tmp_path / "a\x1b[2J\u202eb.jsonl", [{"in\x1bstruction": "Sort."}])
    with pytest.raises(ValueError) as caught:
        load_seeds(str(path))
    assert str(caught.value).isprintable()
    assert "a\\x1b[2J\\u202eb.jsonl: has no column 'instruction', only 'in\\x1bstruction'; name" in str(caught.value)
