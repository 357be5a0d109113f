"""Run as a script, this file is the client: it pushes to a Hub in its own process and prints the outcome as JSON."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hub_server import git_hash

ROOT = Path(__file__).parent.parent
TOKEN = "hf_planted0planted0planted0"
CARD = (
    "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/*.parquet\n---\n# Rows\n"
)
NOT_SENT = (
    "run.json",
    "ledger.sqlite",
    "training_args.bin",
    "data/notes.pkl",
    ".git/config",
    "checkpoint-2/config.json",
)
FAULTS = [
    ("create_repo", "503"),
    ("info", "reset"),
    ("tree", "hang"),
    ("validate_yaml", "503"),
    ("lfs_put", "503"),
    ("commit", "503"),
    ("commit", "429"),
    ("commit", "412"),
    ("commit", "lost"),
    ("commit", "hang"),
]


def write_folder(folder: Path, rows: dict[str, list]) -> Path:
    import datasets

    for name in ("README.md", *NOT_SENT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CARD if name == "README.md" else "{}")
    datasets.Dataset.from_dict(rows).to_parquet(folder / f"data/train-{len(rows['prompt'])}.parquet")
    return folder


def raised(call) -> str | None:
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def load(repo_id: str) -> dict[str, list]:
    import datasets

    return datasets.load_dataset(repo_id, split="train").to_dict()


def repeated_pushes(hub, push, folder: Path) -> dict:
    repo_id = "ada/rows"
    urls = [push(folder, repo_id), push(folder, repo_id)]
    repo = hub.repos["dataset", repo_id]
    first, loaded = list(repo.commits), load(repo_id)
    (folder / "data/train-2.parquet").unlink()
    write_folder(folder, {"prompt": ["c", "d", "e"]})
    urls.append(push(folder, repo_id))
    files = sorted(repo.commits[repo.branches["main"]])
    branch = push(folder, repo_id, revision="v2")
    return {
        "urls": [url.removeprefix(hub.url) for url in [*urls, branch]],
        "commits": [len(first), len(repo.commits)],
        "private": repo.private,
        "loaded": loaded,
        "reloaded": load(repo_id),
        "files": files,
        "marker": json.loads(repo.commits[first[-1]][".teamsrl.json"]),
        "shas": list(repo.commits),
    }


def refusals(hub, push, folder: Path) -> dict:
    foreign = hub.add("dataset", "ada/foreign", {"README.md": b"mine", "data.csv": b"1"})
    public = hub.add("dataset", "ada/public", {}, private=False)
    said = [raised(lambda: push(folder, "ada/foreign")), raised(lambda: push(folder, "ada/public"))]
    untouched = [len(foreign.commits), len(public.commits)]
    push(folder, "ada/foreign", overwrite=True)
    push(folder, "ada/public", private=False)
    hub.faults.append(("commit", "403"))
    asked = hub.count("commit")
    said.append(raised(lambda: push(folder, "ada/forbidden")))
    asked = hub.count("commit") - asked
    hub.faults.append(("commit", "503"))
    said.append(raised(lambda: push(folder, "ada/away", patience=0)))
    ignoring = hub.add("dataset", "ada/ignoring", {".gitignore": b"*.parquet"})
    said += [
        raised(lambda: push(folder, "ada/ignoring", overwrite=True)),
        raised(lambda: push(folder, "ada/ignoring", overwrite=True)),
    ]
    said[4] = said[4].replace(list(ignoring.commits)[2], "<sha>")
    replaced = sorted(foreign.commits[foreign.branches["main"]])
    return {"said": said, "untouched": untouched, "replaced": replaced, "asked": asked}


def releases(hub, push, folder: Path) -> dict:
    from teamsrl_hf.cli import main

    repo_id = "ada/released"
    urls = [push(folder, repo_id, tag="v1", collection="Rows of ours"), push(folder, repo_id, create_pr=True)]
    card = folder / "README.md"
    card.write_text(CARD + "More.\n")
    said = raised(lambda: push(folder, repo_id, tag="v1"))
    repo = hub.repos["dataset", repo_id]
    before = len(repo.commits)
    pulls = [push(folder, repo_id, create_pr=True) for _ in range(2)]
    card.write_text(CARD)
    (slug,) = hub.collections
    return {
        "urls": [url.removeprefix(hub.url).replace(repo.branches["main"], "<sha>") for url in (*urls, *pulls)],
        "said": said,
        "commits": [before, len(repo.commits)],
        "main": b"More." in repo.commits[repo.branches["main"]]["README.md"],
        "pull": b"More." in repo.commits[repo.branches["refs/pr/1"]]["README.md"],
        "pulls": [pull["status"] for pull in repo.pulls],
        "tags": repo.tags == {"v1": repo.branches["main"]},
        "collection": [hub.collections[slug]["private"], [item["id"] for item in hub.collections[slug]["items"]]],
        "short": push(folder, "short").removeprefix(hub.url).rpartition("/")[0],
        "command": [main(["push", str(folder), "ada/by-command"]), main(["push", str(folder), "ada/public"])],
        "by_command": hub.repos["dataset", "ada/by-command"].private,
    }


def faults(hub, push, folder: Path) -> dict:
    from teamsrl_hf.hub import push as module

    module.TIME_LIMIT = 0.5
    results = {}
    for kind, fault in FAULTS:
        hub.faults.append((kind, fault))
        hub.objects.clear()
        url = push(folder, f"ada/{kind}-{fault}")
        repo = hub.repos["dataset", f"ada/{kind}-{fault}"]
        results[f"{kind} {fault}"] = [
            len(repo.commits) - 1,
            url.endswith(repo.branches["main"]),
            hub.faults == [],
        ]
    return results


def client() -> None:
    from hub_server import Hub

    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=home, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
        from huggingface_hub.utils import _http

        from teamsrl_hf.hub.push import push_dataset

        folder = write_folder(Path(home) / "run", {"prompt": ["a", "b"], "completion": ["1", None]})
        factory = _http._GLOBAL_CLIENT_FACTORY
        told = {run.__name__: run(hub, push_dataset, folder) for run in (repeated_pushes, refusals, releases, faults)}
        told["restored"] = _http._GLOBAL_CLIENT_FACTORY is factory
        told["token_used"] = hub.tokens == {TOKEN}
        print(json.dumps(told))


@pytest.fixture(scope="module")
def output():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def told(output):
    assert output.returncode == 0, output.stderr
    return json.loads(output.stdout.splitlines()[-1])


def test_rows_pushed_are_the_rows_loaded(told):
    assert told["repeated_pushes"]["loaded"] == {"prompt": ["a", "b"], "completion": ["1", None]}
    assert told["repeated_pushes"]["private"] is True


def test_an_unchanged_folder_makes_no_second_commit(told):
    result = told["repeated_pushes"]
    assert result["commits"][0] == 2  # the one of create_repo, and ours
    assert result["urls"][0] == result["urls"][1] == f"/datasets/ada/rows/commit/{result['shas'][1]}"


def test_a_changed_folder_makes_one_commit_that_adds_and_deletes(told):
    result = told["repeated_pushes"]
    assert result["commits"][1] == 3
    assert result["urls"][2] == f"/datasets/ada/rows/commit/{result['shas'][2]}"
    assert result["reloaded"] == {"prompt": ["c", "d", "e"]}


def test_only_card_rows_and_marker_travel(told):
    result = told["repeated_pushes"]
    assert result["files"] == [".gitattributes", ".teamsrl.json", "README.md", "data/train-3.parquet"]
    marker = result["marker"]
    card = marker["files"].pop("README.md")
    assert list(marker["files"]) == ["data/train-2.parquet"]
    assert marker | {"files": {}} == {
        **{"project": "teamsrl-hf", "version": 2, "kind": "dataset", "account": "ada", "files": {}}
    }
    assert card == {"sha256": hashlib.sha256(CARD.encode()).hexdigest(), "git": git_hash(CARD.encode())}


def test_a_branch_made_from_an_equal_main_needs_no_commit(told):
    assert told["repeated_pushes"]["urls"][3] == told["repeated_pushes"]["urls"][2]


def test_a_repository_of_others_is_refused_unless_told_to_overwrite(told):
    result = told["refusals"]
    assert result["said"][0] == (
        "UserError: Repository ada/foreign holds files that this project did not write; the push would "
        "replace, delete or put back README.md, data.csv; take another name, or pass overwrite=True (--overwrite) to "
        "do so."
    )
    assert result["untouched"][0] == 2
    assert result["replaced"] == [".gitattributes", ".teamsrl.json", "README.md", "data/train-3.parquet"]


def test_a_public_repository_is_refused_when_private_was_asked(told):
    assert told["refusals"]["said"][1] == (
        "UserError: Repository ada/public is public; make it private on the Hub, or pass private=False."
    )
    assert told["refusals"]["untouched"][1] == 1


def test_a_403_is_not_tried_again(told):
    assert told["refusals"]["said"][2].startswith(
        "RuntimeError: The Hub refused the push to ada/forbidden: 403 Forbidden."
    )
    assert "not with ***" in told["refusals"]["said"][2]
    assert told["refusals"]["asked"] == 1


def test_an_outage_longer_than_the_patience_says_to_call_again(told):
    expected = "The Hub did not take the push to ada/away: 503 Service Unavailable. Call again later."
    assert told["refusals"]["said"][3] == f"RuntimeError: {expected}"


def test_a_commit_is_read_back_and_told_apart_from_what_was_sent(told):
    assert told["refusals"]["said"][4:] == [
        "RuntimeError: Commit <sha> in ada/ignoring lacks or alters data/train-3.parquet. "
        "Call again with overwrite=True (--overwrite).",
        None,
    ]


def test_a_release_is_tagged_and_gathered_and_its_tag_never_moves(told):
    result = told["releases"]
    assert result["urls"][0] == "/datasets/ada/released/commit/<sha>"
    assert result["tags"] is True
    assert result["collection"] == [True, ["ada/released"]]
    assert result["said"] == "UserError: Tag 'v1' of ada/released names another content; take a new tag."


def test_a_pull_request_is_opened_once_and_leaves_main_alone(told):
    result = told["releases"]
    assert result["urls"][1:] == ["/datasets/ada/released/discussions/1"] * 3
    assert result["commits"] == [2, 3]
    assert (result["main"], result["pull"]) == (False, True)
    assert result["pulls"] == ["open"]


def test_a_name_alone_is_one_of_the_user(told):
    assert told["releases"]["short"] == "/datasets/ada/short/commit"


def test_the_command_pushes_privately_and_tells_a_refusal_in_one_line(told, output):
    assert told["releases"]["command"] == [0, 2]
    assert told["releases"]["by_command"] is True
    assert "error: Repository ada/public is public; make it private on the Hub" in output.stderr
    assert "Traceback" not in output.stderr


@pytest.mark.parametrize("fault", [" ".join(pair) for pair in FAULTS])
def test_a_passing_fault_is_absorbed_with_exactly_one_commit(told, fault):
    assert told["faults"][fault] == [1, True, True]


def test_the_client_is_left_as_it_was_found(told):
    assert told["restored"] is True


def test_the_token_is_sent_but_never_told(told, output):
    assert told["token_used"] is True
    assert TOKEN not in output.stdout + output.stderr


@pytest.mark.parametrize(
    ("push", "files", "missing"),
    [
        ("push_folder", ["data/a.parquet"], "does not exist or holds no README.md"),
        ("push_dataset", ["README.md"], "holds no **/*.parquet"),
        ("push_policy", ["README.md", "config.json", "pytorch_model.bin"], "holds no *.safetensors"),
        ("push_adapter", ["README.md", "config.json", "model.safetensors"], "holds no adapter_config.json"),
    ],
)
def test_an_incomplete_folder_is_refused_before_any_request(tmp_path, push, files, missing):
    from teamsrl_hf.hub import push as hub

    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    options = {"repo_type": "dataset", "commit_message": "m"} if push == "push_folder" else {}
    with pytest.raises(ValueError) as error:
        getattr(hub, push)(tmp_path, "ada/rows", api=object(), **options)
    assert missing in str(error.value)


def test_a_pull_request_goes_with_neither_branch_nor_tag(tmp_path):
    from teamsrl_hf.hub.push import push_dataset

    (tmp_path / "a.parquet").touch()
    for other in ({"tag": "v1"}, {"revision": "v1"}):
        with pytest.raises(ValueError, match="create_pr goes with neither revision nor tag"):
            push_dataset(tmp_path, "ada/rows", create_pr=True, **other)


if __name__ == "__main__":
    client()
