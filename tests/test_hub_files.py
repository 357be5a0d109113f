"""What a folder may send to the Hub, what it is, and what of a repository a push would lose; no Hub is asked."""

import json
import os

import pytest

from teamsrl_hf.hub.files import (
    File,
    Record,
    objection,
    open_folder,
    read_marker,
    refuse_secret,
    write_marker,
)
from teamsrl_hf.hub.names import base_to_publish, check_whole, renamed

POLICY = json.dumps({"model_type": "teamsrl_operation_policy"})
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "merges.txt")
# Names that a run, a user or a library may leave in any folder.
NEVER = (
    *(
        "credentials.json",
        "foo.json",
        "notes.md",
        "training_args.bin",
        "run.json",
        "lineage.json",
        "ledger.sqlite",
        "ledger-7.sqlite",
    ),
    *(".env", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "all_results.json", "audit.json"),
    *(
        "events.out.tfevents.1",
        "pytorch_model.bin",
        "adapter_model.bin",
        "modeling_own.py",
        "README.md.bak",
        "key.pem",
    ),
    *(
        "optimizer.safetensors",
        "model-1.safetensors",
        "secrets.parquet",
        "training.parquet",
        "selfie.png",
        "index.html",
        "readme.md",
    ),
    *("checkpoint-2/config.json", "checkpoint-2/model.safetensors", ".git/config", "data/.env", "data/more/a.parquet"),
    *("checkpoint-2/adapter_config.json", "trajectories/credentials.json", "plots/selfie.png", "old/README.md"),
    *(".eval_results/run.json", ".eval_results/old/verifiable_ifbench.yaml"),
    *(".writing/data/train.parquet", ".cache/huggingface/token", "tokenizer.model/part", "wandb/run.json"),
)
FOLDERS = {
    "dataset": (
        *("README.md", "LICENSE", "data/train-00000-of-00001-0a1b.parquet", "data/test-00000-of-00001-0c.parquet"),
        *("trajectories/train-00000-of-00001-0d.parquet", "report.html", "plots/operations.png", "plots/lengths.png"),
        *("plots/novelty.png", "train.parquet", "test-0a1b.parquet"),
    ),
    "policy": ("README.md", "config.json", "model.safetensors", "plots/reward.png", *TOKENIZER),
    "adapter": (
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "loss.png", "roc.png", *TOKENIZER),
        ".eval_results/verifiable_ifbench.yaml",
    ),
    "model": (
        *("README.md", "NOTICE", "config.json", "generation_config.json", "model.safetensors.index.json", *TOKENIZER),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "loss.png"),
    ),
}


# What is sent with folders of another kind.
ELSEWHERE = {
    "dataset": ("loss.png", "tokenizer.json", "vocab.txt", "plots/reward.png", ".eval_results/a.yaml"),
    "policy": ("loss.png", "report.html", "generation_config.json", "plots/lengths.png"),
    "adapter": ("report.html", "plots/reward.png", "model.safetensors", "generation_config.json"),
    "model": ("report.html", "plots/reward.png", "plots/lengths.png"),
}


def write(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(POLICY if (folder.name, name) == ("policy", "config.json") else "{}")
    return folder


def file(content):
    return File.of(content.encode())


@pytest.mark.parametrize("kind", FOLDERS)
def test_of_each_kind_of_folder_a_list_known_beforehand_is_sent_and_the_rest_is_named(kind, tmp_path):
    folder = write(tmp_path / kind, (*FOLDERS[kind], *NEVER, *ELSEWHERE[kind], ".teamsrl.json"))
    found = open_folder(folder)
    assert (found.kind, sorted(found.files)) == (kind, sorted(FOLDERS[kind]))
    assert found.left_out == sorted((*NEVER, *ELSEWHERE[kind]))


def test_links_are_left_out_and_named_whether_to_files_or_folders_or_nowhere(tmp_path):
    outside = write(tmp_path / "outside", ["secret.parquet", "card.md", "more/train.parquet"])
    folder = write(tmp_path / "run", ["README.md", "data/train.parquet"])
    (folder / "LICENSE").symlink_to(outside / "card.md")
    (folder / "data/test.parquet").symlink_to(outside / "secret.parquet")
    (folder / "data/lost.parquet").symlink_to(outside / "nowhere")
    (folder / "trajectories").symlink_to(outside / "more")
    os.mkfifo(folder / "report.html")
    found = open_folder(folder)
    assert sorted(found.files) == ["README.md", "data/train.parquet"]
    assert found.left_out == ["LICENSE", "data/lost.parquet", "data/test.parquet", "report.html", "trajectories"]


def test_a_folder_that_is_itself_a_link_is_pushed_as_it_lies(tmp_path):
    write(tmp_path / "run", ["README.md", "data/train.parquet"])
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert sorted(open_folder(tmp_path / "link").files) == ["README.md", "data/train.parquet"]


def test_a_folder_whose_run_was_stopped_is_not_pushed(tmp_path):
    folder = write(tmp_path / "run", ["README.md", "data/train.parquet"])
    (folder / "run.json").write_text('{"arguments": {}, "summary": null}')
    with pytest.raises(ValueError, match=r"The run in '.*run' is not finished; run its command again"):
        open_folder(folder)
    (folder / "run.json").write_text('{"arguments": {}, "summary": {}}')
    assert open_folder(folder).kind == "dataset"


def test_a_folder_whose_card_is_a_link_has_none(tmp_path):
    folder = write(tmp_path / "run", ["data/train.parquet"])
    write(tmp_path, ["card.md"])
    (folder / "README.md").symlink_to(tmp_path / "card.md")
    with pytest.raises(ValueError, match=r"holds no README\.md"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("files", "repo_type", "kind"),
    [
        (["data/a.parquet"], None, "dataset"),
        (["config.json"], None, "model"),
        (["adapter_config.json"], None, "adapter"),
        (["adapter_config.json", "config.json"], None, "adapter"),
        (["config.json", "data/a.parquet"], "model", "model"),
        (["config.json", "data/a.parquet"], "dataset", "dataset"),
    ],
)
def test_what_a_folder_is_its_own_files_say(files, repo_type, kind, tmp_path):
    weights = ["README.md", "model.safetensors", "adapter_model.safetensors"]
    assert open_folder(write(tmp_path / "run", [*files, *weights]), repo_type).kind == kind


@pytest.mark.parametrize("files", [["config.json"], ["config.json", "adapter_config.json"]])
def test_a_policy_is_known_by_its_config_whether_whole_or_an_adapter(files, tmp_path):
    assert open_folder(write(tmp_path / "policy", [*files, "README.md", "model.safetensors"])).kind == "policy"


@pytest.mark.parametrize(
    ("files", "repo_type", "said"),
    [
        (["a.safetensors", "chooser.json"], None, "holds no dataset and no model"),
        (["checkpoint-2/config.json", "old/data/a.parquet"], None, "holds no dataset and no model"),
        (["config.json", "data/a.parquet"], None, "may hold a dataset or a model; say which with --repo_type"),
        (["config.json"], "dataset", "holds no dataset"),
        (["config.json"], "space", "repo_type is 'space'"),
        (None, None, "does not exist"),
    ],
)
def test_a_folder_that_nobody_can_tell_is_refused(files, repo_type, said, tmp_path):
    folder = write(tmp_path / "run", files) if files else tmp_path / "none"
    with pytest.raises(ValueError) as error:
        open_folder(folder, repo_type)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_a_folder_without_its_weights_is_refused(name, tmp_path):
    folder = write(tmp_path / "run", ["README.md", name, "pytorch_model.bin"])
    with pytest.raises(
        ValueError, match=r"holds no \*\.safetensors that could be sent; give the folder that the run wrote"
    ):
        open_folder(folder)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("model", "model.safetensors"), ("model", "model-1.safetensors"), ("adapter", "adapter_model.safetensors")],
)
def test_weights_that_are_links_or_oddly_named_and_so_not_sent_are_none(kind, weights, tmp_path):
    config = "config.json" if kind == "model" else "adapter_config.json"
    folder = write(tmp_path / kind, ["README.md", config, "elsewhere"])
    if weights == "model-1.safetensors":
        write(folder, [weights])
    else:
        (folder / weights).symlink_to(folder / "elsewhere")
    with pytest.raises(ValueError, match=r"holds no .*\.safetensors that could be sent"):
        open_folder(folder)


@pytest.mark.parametrize("second", [None, "a link"])
def test_a_model_that_lacks_one_of_its_shards_is_refused(second, tmp_path):
    folder = write(tmp_path / "model", FOLDERS["model"])
    shards = [name for name in FOLDERS["model"] if name.startswith("model-")]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_whole(open_folder(folder))
    (folder / shards[1]).unlink()
    if second:
        (folder / shards[1]).symlink_to(folder / shards[0])
    with pytest.raises(ValueError, match=rf"index\.json' names {shards[1]}, which would not be sent"):
        check_whole(open_folder(folder))


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        *(("data/train.parquet", True), ("data/*.parquet", True), ("**/*.parquet", True), ("data", True)),
        *((["data/train.parquet", "data/test.parquet"], False), ("data/*.csv", False), ("rows/*.parquet", False)),
        *(("train.parquet", False), ("hf://datasets/a/b/x.parquet", True), ("https://a.b/x.parquet", True)),
    ],
)
def test_a_card_that_names_rows_which_are_not_sent_is_refused(path, whole, tmp_path):
    folder = write(tmp_path / "run", ["data/train.parquet", "data/rows.csv", "rows/a.parquet"])
    files = json.dumps([{"split": "train", "path": path}])
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n")
    if whole:
        check_whole(open_folder(folder))
    else:
        with pytest.raises(ValueError, match=r"README\.md' names .*, which would not be sent"):
            check_whole(open_folder(folder))


@pytest.mark.parametrize(
    "configs", ["", "configs: x", "configs: [1]", "configs:\n- data_files: 'data/*'", "configs:\n- a: b"]
)
def test_a_card_that_names_rows_in_another_way_or_none_is_left_to_the_hub(configs, tmp_path):
    folder = write(tmp_path / "run", ["data/train.parquet"])
    (folder / "README.md").write_text(f"---\n{configs}\n---\n")
    check_whole(open_folder(folder))


def test_a_card_is_given_only_to_a_folder_that_has_none(tmp_path):
    folder = write(tmp_path / "run", ["config.json", "model.safetensors"])
    assert open_folder(folder, card=b"Given").files["README.md"] == file("Given")
    (folder / "README.md").write_text("Own")
    assert open_folder(folder, card=b"Given").files["README.md"].git == file("Own").git


def test_a_config_that_is_cut_off_is_named(tmp_path):
    folder = write(tmp_path / "run", ["README.md"])
    (folder / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(ValueError, match=r"config\.json' is damaged"):
        open_folder(folder)


def test_a_file_that_holds_the_token_in_use_is_refused(tmp_path):
    folder = write(tmp_path / "run", ["README.md", "data/train.parquet", "data/empty.parquet"])
    (folder / "data/empty.parquet").write_text("")
    (folder / "data/train.parquet").write_bytes(b"\0" * 5000 + b"hf_planted")
    (folder / "report.html").write_bytes(b"hf_first")
    files = open_folder(folder).files
    refuse_secret(files, set())
    refuse_secret(files, {"hf_other"})
    with pytest.raises(ValueError, match=r"^data/train\.parquet holds the Hub token in use, so nothing was sent"):
        refuse_secret(files, {"hf_other", "hf_planted"})
    with pytest.raises(ValueError, match=r"^report\.html holds"):
        refuse_secret(files, {"hf_first"})
    with pytest.raises(ValueError, match=r"^README\.md holds"):
        refuse_secret({"README.md": file("key: hf_planted")}, {"hf_planted"})


def tree(**contents):
    """A repository whose large files are listed by SHA-256 and whose others by git's hash."""
    return {name: file(text).sha256 if name == "rows" else file(text).git for name, text in contents.items()}


def record(kind="dataset", account="ada", **contents):
    return read_marker(write_marker(kind, account, {name: file(text) for name, text in contents.items()}))


@pytest.mark.parametrize(
    ("there", "pushed", "lost"),
    [
        ({"card": "old", "rows": "1"}, {"card": "new", "rows": "2"}, None),
        ({"card": "old", "rows": "1"}, {"card": "new"}, None),
        ({"card": "edited", "rows": "1"}, {"card": "new", "rows": "2"}, "card"),
        ({"card": "edited", "rows": "1"}, {"card": "edited", "rows": "2"}, None),  # The edit was fetched.
        ({"card": "old", "rows": "edited"}, {"card": "new"}, "rows"),
        ({"card": "old", "rows": "1", "note": "x"}, {"card": "new", "rows": "2"}, "note"),
        ({"card": "old", "rows": "1", "note": "x"}, {"card": "new", "note": "x"}, None),
        ({"card": "old"}, {"card": "new", "rows": "1"}, "rows"),  # It would come back.
        ({"card": "old"}, {"card": "new"}, None),
        ({}, {"card": "new", "rows": "2"}, "card, rows"),
    ],
)
def test_what_was_edited_added_or_deleted_since_the_last_push_is_named(there, pushed, lost):
    files = {name: file(text) for name, text in pushed.items()}
    there = {**tree(**there), ".teamsrl.json": "0", ".gitattributes": "0"}
    said = objection(record(card="old", rows="1"), "dataset", "ada", there, files)
    assert said == (
        lost
        and "was changed on the Hub since the last push (download what changed into the folder to keep it); "
        f"the push would replace, delete or put back {lost}"
    )


@pytest.mark.parametrize(
    ("known", "marked", "said"),
    [
        (None, False, "holds files that this project did not write"),
        (None, True, "carries a .teamsrl.json without a record of files (of an earlier version, or edited)"),
        (record("adapter", card="old"), True, "holds a push of kind adapter, not policy"),
        (record("policy", "eve", card="old"), True, "was last pushed by eve, not by ada"),
        (Record("\x1b[2Jmodel", "ada", {}), True, "holds a push of kind �[2Jmodel, not policy"),
    ],
)
def test_a_stranger_another_kind_and_another_account_are_told_apart(known, marked, said):
    there = {**tree(card="old", same="1"), **({".teamsrl.json": "0"} if marked else {})}
    found = objection(known, "policy", "ada", there, {"card": file("new"), "same": file("1")})
    assert found == f"{said}; the push would replace, delete or put back card"


def test_a_stranger_is_one_also_where_nothing_would_be_lost():
    said = objection(None, "policy", "ada", tree(card="same"), {"card": file("same")})
    assert said == "holds files that this project did not write"


def test_of_many_names_the_first_are_told():
    there = {f"data/{number:02}\n": "0" for number in range(30)}
    said = objection(None, "dataset", "ada", there, {})
    assert "data/18, data/19 and 10 more" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"", b"\xff", b"null", b"[]", b"{}", b'{"project": "teamsrl-hf", "version": 1}'),
        *(b'{"project": "teamsrl-hf", "version": 3, "kind": "dataset", "account": "ada", "files": {}}',),
        *(b'{"project": "other", "version": 2, "kind": "dataset", "account": "ada", "files": {}}',),
        *(b'{"project": "teamsrl-hf", "version": 2, "kind": "dataset", "account": "ada", "files": {"a": "b"}}',),
        *(b'{"project": "teamsrl-hf", "version": 2, "kind": "dataset", "account": "ada", "files": ["a"]}',),
        *(b'{"project": "teamsrl-hf", "version": 2, "account": "ada", "files": {}}',),
    ],
)
def test_a_marker_that_is_damaged_or_of_another_version_is_no_record(content):
    assert read_marker(content) is None


ADAPTER = ("README.md", "adapter_config.json", "adapter_model.safetensors")


def adapter(folder, base, card="# Adapter\n", **more):
    write(folder, ADAPTER)
    config = {"base_model_name_or_path": base, "peft_type": "LORA", **more}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize("kept", ["{folder}/base", "{folder}/../run/base", "/home/ada/run/base"])
def test_a_base_in_the_runs_own_folder_is_to_be_published_also_when_the_folder_was_moved(kept, tmp_path):
    folder = adapter(tmp_path / "run", kept.format(folder=tmp_path / "run"))
    write(folder / "base", ["config.json", "model.safetensors"])
    assert base_to_publish(open_folder(folder), None) == folder / "base"


@pytest.mark.parametrize("base", ["/home/ada/llama", "./llama", "../llama", "~/llama", "models/hf/llama", "C:\\llama"])
def test_another_folder_as_base_is_refused_with_the_ways_out(base, tmp_path):
    folder = adapter(tmp_path / "run", base)
    write(folder / "base", ["config.json", "model.safetensors"])
    with pytest.raises(ValueError) as error:
        base_to_publish(open_folder(folder), None)
    assert repr(base) in str(error.value)
    assert "--base_model USER/NAME" in str(error.value)
    assert "recipes/merge_adapter.py" in str(error.value)


def test_a_base_elsewhere_is_not_taken_for_the_folders_own_by_its_name(tmp_path):
    write(tmp_path / "other/base", ["config.json"])
    folder = adapter(tmp_path / "run", str(tmp_path / "other/base"))
    write(folder / "base", ["config.json", "model.safetensors"])
    with pytest.raises(ValueError, match="is a folder of this machine"):
        base_to_publish(open_folder(folder), None)


def test_a_folder_that_reads_like_a_hub_id_is_still_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "models/llama", ["config.json"])
    folder = adapter(tmp_path / "run", "models/llama")
    with pytest.raises(ValueError, match="a folder of this machine, 'models/llama'"):
        base_to_publish(open_folder(folder), None)
    assert base_to_publish(open_folder(adapter(tmp_path / "other", "models/mistral")), None) is None


def test_a_link_in_place_of_the_base_is_not_followed(tmp_path):
    write(tmp_path / "llama", ["config.json", "model.safetensors"])
    folder = adapter(tmp_path / "run", str(tmp_path / "run/base"))
    (folder / "base").symlink_to(tmp_path / "llama")
    with pytest.raises(ValueError, match="is a folder of this machine"):
        base_to_publish(open_folder(folder), None)


def test_an_adapter_is_sent_with_the_base_it_has_on_the_hub_and_the_folder_stays(tmp_path):
    card = '---\nlicense: mit\nbase_model: x\n---\n# A\n\nload("FOLDER_OR_HUB_ID")\n'
    folder = adapter(tmp_path / "run", "/home/ada/llama", card, revision="old")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = renamed(open_folder(folder), "ada/run", "meta/llama", "0a1b")
    assert json.loads(found["adapter_config.json"]) == {
        **{"base_model_name_or_path": "meta/llama", "peft_type": "LORA", "revision": "0a1b"}
    }
    assert found["README.md"].decode() == (
        '---\nlicense: mit\nbase_model: meta/llama\nbase_model_relation: adapter\n---\n# A\n\nload("ada/run")\n'
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_card_without_front_matter_gets_one_that_names_the_base(tmp_path):
    found = renamed(open_folder(adapter(tmp_path / "run", "/llama")), "ada/run", "meta/llama")
    assert found["README.md"] == b"---\nbase_model: meta/llama\nbase_model_relation: adapter\n---\n# Adapter\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_base_is_named_once_whatever_ends_the_cards_lines(end, tmp_path):
    folder = adapter(tmp_path / "run", "/llama")
    (folder / "README.md").write_bytes(end.join(("---", "license: mit", "base_model: x", "---", "# A", "")).encode())
    (_, front, text) = renamed(open_folder(folder), "ada/run", "meta/llama")["README.md"].decode().split("---")
    assert front.split() == ["license:", "mit", "base_model:", "meta/llama", "base_model_relation:", "adapter"]
    assert text == f"\n# A{end}"


@pytest.mark.parametrize("card", ["# Caf\xe9".encode("latin-1"), b"---\na: [\n---\n", b"---\n\x80\n---\n"])
def test_a_card_that_cannot_be_read_is_named(card, tmp_path):
    folder = adapter(tmp_path / "run", "/llama")
    (folder / "README.md").write_bytes(card)
    with pytest.raises(ValueError, match=r"README\.md' can't be read"):
        renamed(open_folder(folder), "ada/run", "meta/llama")


def test_placeholders_of_every_card_become_the_repository(tmp_path):
    folder = write(tmp_path / "run", ["data/train.parquet"])
    (folder / "README.md").write_text('load_dataset("PATH_OR_HUB_ID")')
    assert renamed(open_folder(folder), "ada/rows", None) == {"README.md": b'load_dataset("ada/rows")'}


def test_of_the_folder_its_backbone_came_from_a_whole_policy_keeps_the_name(tmp_path):
    folder = write(tmp_path / "policy", ["README.md", "model.safetensors"])
    (folder / "config.json").write_text(json.dumps({**json.loads(POLICY), "backbone_name": "/home/ada/bert"}))
    assert json.loads(renamed(open_folder(folder), "ada/policy", None)["config.json"])["backbone_name"] == "bert"


@pytest.mark.parametrize("name", ["/home/ada/bert", "{folder}/base"])
def test_a_policys_adapter_needs_its_backbone_on_the_hub(name, tmp_path):
    folder = write(tmp_path / "policy", (*ADAPTER, "base/config.json", "base/model.safetensors"))
    name = name.format(folder=folder)
    (folder / "config.json").write_text(json.dumps({**json.loads(POLICY), "backbone_name": name}))
    with pytest.raises(ValueError, match=f"is a folder of this machine, '{name}'"):
        base_to_publish(open_folder(folder), None)
    found = {
        name: json.loads(text)
        for name, text in renamed(open_folder(folder), "ada/p", "google/bert").items()
        if name != "README.md"
    }
    assert found["config.json"]["backbone_name"] == "google/bert"
    assert found["adapter_config.json"] == {"revision": None}  # It named none.


@pytest.mark.parametrize(
    ("kind", "base", "said"), [("model", "a/b", "is for adapters"), ("adapter", "./b", "no Hub id")]
)
def test_a_base_that_makes_no_sense_is_refused(kind, base, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        base_to_publish(open_folder(write(tmp_path / kind, FOLDERS[kind])), base)
