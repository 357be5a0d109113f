"""What is on the Hub already: a push replaces what the last one wrote, and of anything else only says what would go.

Run as a script, this file is the client: it pushes to a Hub in its own process and prints the outcome as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOKEN, EVES = "hf_planted8planted8planted8", "hf_eves8eves8eves8"
CARD = "---\nlicense: mit\n---\n# A card\n"
FOLDERS = {
    "dataset": {"data/train.parquet": "rows", "report.html": "page"},
    "policy": {"config.json": '{"model_type": "teamsrl_operation_policy"}', "model.safetensors": "weights"},
    "adapter": {"adapter_config.json": '{"base_model_name_or_path": "a/b"}', "adapter_model.safetensors": "weights"},
    "model": {"config.json": '{"model_type": "llama"}', "model.safetensors": "weights"},
}
NOT_OURS = ("credentials.json", "foo.json", "notes.md", "training_args.bin", "run.json", "ledger.sqlite", ".env")
ODD = ("whoami", "create_repo", "info", "tree", "resolve_get", "preupload", "lfs_batch", "commit")


def write(folder: Path, kind: str, **changed: str) -> Path:
    for name, content in {"README.md": CARD, **FOLDERS[kind], **changed}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def attempt(hub, folder: Path, repo_id: str, **options) -> str:
    """The URL's path, or what was said."""
    from teamsrl_hf.hub.push import push_folder

    try:
        url = push_folder(folder, repo_id, **{"commit_message": "Ours", "patience": 30, **options})
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return url.removeprefix(hub.url)


def tree(hub, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, str]:
    repo = hub.repos[repo_type, repo_id]
    files = repo.commits[repo.branches[revision]]
    return {n: c.decode() for n, c in files.items() if n not in (".gitattributes", ".teamsrl.json")}


def commits(hub, repo_id: str, repo_type: str = "model") -> int:
    return len(hub.repos[repo_type, repo_id].commits) - 1  # One is made with the repository.


def by_hand(repo_id: str, change: dict[str, str | None], token: str = TOKEN, repo_type="dataset", **options) -> None:
    """A commit as people make them; None deletes."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    operations = [
        CommitOperationDelete(name) if content is None else CommitOperationAdd(name, content.encode())
        for name, content in change.items()
    ]
    HfApi(token=token).create_commit(repo_id, operations, commit_message="By hand", repo_type=repo_type, **options)


def kinds(hub, home: Path) -> dict:
    """Each kind over each other, in a folder full of what must not be sent."""
    said, trees = {}, {}
    for kind in FOLDERS:
        folder = write(home / kind, kind, **dict.fromkeys(NOT_OURS, "{}"))
        attempt(hub, folder, f"ada/{kind}")
        trees[kind] = sorted(tree(hub, f"ada/{kind}", repo_type="dataset" if kind == "dataset" else "model"))
    for kind in ("policy", "adapter", "model"):
        for other in ("policy", "adapter", "model"):
            if kind != other:
                said[f"{kind} over {other}"] = attempt(hub, home / kind, f"ada/{other}")
    before = commits(hub, "ada/adapter")
    attempt(hub, home / "policy", "ada/adapter", overwrite=True)
    said["asked"] = [before, commits(hub, "ada/adapter"), sorted(tree(hub, "ada/adapter"))]
    return {"trees": trees, "said": said}


def edits(hub, home: Path) -> dict:
    """Edited, added and deleted by hand between two pushes."""
    folder, repo_id = write(home / "edited", "dataset"), "ada/edited"
    attempt(hub, folder, repo_id)
    by_hand(repo_id, {"README.md": "Edited", "notes.md": "Added", "report.html": None})
    by_hand(repo_id, {".gitattributes": "*.bin filter=lfs\n"})
    write(folder, "dataset", **{"data/train.parquet": "more rows"})
    said = [attempt(hub, folder, repo_id)]
    hub.faults.append(("tree", "odd"))  # As if the repository were empty.
    said.append(attempt(hub, folder, repo_id))
    write(folder, "dataset")
    said.append(attempt(hub, folder, repo_id))  # The folder is as it was.
    write(folder, "dataset", **{"data/train.parquet": "more rows"})
    kept = tree(hub, repo_id, repo_type="dataset")
    # What changed is brought into the folder, where it can be.
    (folder / "README.md").write_text("Edited")
    (folder / "report.html").unlink()
    said.append(attempt(hub, folder, repo_id))
    by_hand(repo_id, {"notes.md": None})
    url = attempt(hub, folder, repo_id)
    merged = tree(hub, repo_id, repo_type="dataset")
    by_hand(repo_id, {"data/train.parquet": "edited rows"})
    write(folder, "dataset")
    said.append(attempt(hub, folder, repo_id))
    attempt(hub, folder, repo_id, overwrite=True)
    replaced = tree(hub, repo_id, repo_type="dataset")
    write(folder, "dataset", **{"data/train.parquet": "rows of a race"})
    hub.faults.append(("commit", "raced"))
    said.append(attempt(hub, folder, repo_id))
    return {"said": said, "kept": kept, "url": url, "merged": merged, "replaced": replaced}


def markers(hub, home: Path) -> dict:
    """A marker of the version that kept no record, and one that somebody edited."""
    folder = write(home / "marked", "model")
    old = b'{"project": "teamsrl-hf", "version": 1}\n'
    files = {name: path.read_bytes() for name, path in ((p.name, p) for p in folder.iterdir())}
    hub.add("model", "ada/old", {**files, "vocab.txt": b"x", ".teamsrl.json": old})
    said = [attempt(hub, folder, "ada/old"), commits(hub, "ada/old")]
    said += [attempt(hub, folder, "ada/old", overwrite=True)[:20], attempt(hub, folder, "ada/old")[:20]]
    by_hand("ada/old", {".teamsrl.json": "{}"}, repo_type="model")
    write(folder, "model", **{"README.md": "New"})
    return {"said": [*said, attempt(hub, folder, "ada/old")], "commits": commits(hub, "ada/old")}


def accounts(hub, home: Path) -> dict:
    """Eve pushes to the organization's repository after Ada; the folder is the same, and then another."""
    from huggingface_hub import HfApi

    eve, folder, repo_id = HfApi(token=EVES), write(home / "shared", "dataset"), "team/rows"
    attempt(hub, folder, repo_id)
    same = [attempt(hub, folder, repo_id, api=eve)[:9], commits(hub, repo_id, "dataset")]
    write(folder, "dataset", **{"data/train.parquet": "Eve's rows"})
    said = [attempt(hub, folder, repo_id, api=eve), commits(hub, repo_id, "dataset")]
    attempt(hub, folder, repo_id, api=eve, overwrite=True)
    return {"same": same, "said": said, "back": attempt(hub, write(home / "shared", "dataset"), repo_id)}


def pulls(hub, home: Path) -> dict:
    """Pull requests of the same title, by Eve and by Ada's own hand, and ours."""
    from huggingface_hub import HfApi

    from teamsrl_hf.hub.files import write_marker
    from teamsrl_hf.hub.target import PULL_NOTE

    folder, repo_id = write(home / "pulled", "model"), "ada/pulled"
    hub.add("model", repo_id, {}, private=False)
    options = {"private": False, "create_pr": True}
    attempt(hub, folder, repo_id, private=False)
    # One that copies what ours says, one with a commit; by Ada's hand one of another kind, one empty, one closed.
    note = PULL_NOTE.format(kind="model")
    told = [(EVES, note), (EVES, None), (TOKEN, None), (TOKEN, None), (TOKEN, note)]
    by_hands = [HfApi(token=t).create_pull_request(repo_id, "Ours", description=said).num for t, said in told]
    by_hand(repo_id, {"README.md": "Eve's"}, EVES, "model", revision="refs/pr/2")
    marker = write_marker("adapter", "ada", {}).decode()
    by_hand(repo_id, {".teamsrl.json": marker}, repo_type="model", revision="refs/pr/3")
    repo = hub.repos["model", repo_id]
    repo.pulls[4]["status"] = "closed"
    # And Eve comments on the empty one.
    repo.pulls[3]["events"].append(repo.pulls[0]["events"][0])
    before = {number: repo.branches[f"refs/pr/{number}"] for number in by_hands}
    write(folder, "model", **{"README.md": "Proposed"})
    hub.faults.append(("open_discussion", "lost"))
    urls = [attempt(hub, folder, repo_id, **options)]
    repo.pulls[5]["events"][0]["data"]["latest"]["raw"] = "My own words"
    write(folder, "model", **{"README.md": "Proposed again"})
    urls.append(attempt(hub, folder, repo_id, **options, commit_message="Another title"))
    by_hand(repo_id, {"README.md": "Reviewed"}, repo_type="model", revision="refs/pr/6")
    write(folder, "model", **{"README.md": "Proposed at last"})
    said = attempt(hub, folder, repo_id, **options)
    reviewed = tree(hub, repo_id, "refs/pr/6")["README.md"]
    attempt(hub, folder, repo_id, **options, overwrite=True)
    foreign = hub.add("model", "bob/theirs", {"README.md": b"Bob's"}, private=False)
    return {
        "urls": urls,
        "said": said,
        "touched": [n for n, sha in before.items() if repo.branches[f"refs/pr/{n}"] != sha],
        "status": [pull["status"] for pull in repo.pulls],
        "cards": [tree(hub, repo_id)["README.md"], reviewed, tree(hub, repo_id, "refs/pr/6")["README.md"]],
        "foreign": [attempt(hub, folder, "bob/theirs", **options), foreign.pulls, len(foreign.commits)],
    }


def branches(hub, home: Path) -> dict:
    """A branch of a repository that is not ours is not even made."""
    folder = write(home / "branch", "model")
    repo = hub.add("model", "ada/branched", {"README.md": b"By hand"})
    said = attempt(hub, folder, "ada/branched", revision="v2")
    made = list(repo.branches)
    attempt(hub, folder, "ada/branched", revision="v2", overwrite=True)
    write(folder, "model", **{"README.md": "On a branch of ours"})
    attempt(hub, folder, "ada/branched", revision="v2")
    return {"said": said, "made": made, "cards": [tree(hub, "ada/branched", b)["README.md"] for b in ("main", "v2")]}


def bases(hub, home: Path) -> dict:
    """An adapter with its base, whose answers get lost one after the other; then others' bases."""
    base = {f"base/{name}": content for name, content in FOLDERS["model"].items()}
    requests = []
    for number in range(60):
        config = json.dumps({"base_model_name_or_path": str(home / "run/base"), "salt": number})
        changed = {"adapter_config.json": config, "base/model.safetensors": str(number)}
        write(home / "run", "adapter", **{**base, **changed})
        hub.requests.clear()
        hub.faults[:] = [(number, "lost")]
        url = attempt(hub, home / "run", f"ada/run{number}")
        if hub.faults:
            break
        found = [commits(hub, f"ada/run{number}"), commits(hub, f"ada/run{number}-base")]
        requests.append([hub.requests[number][0], url.rpartition("/")[0] == f"/ada/run{number}/commit", *found])
    hub.faults.clear()
    urls = {attempt(hub, home / "run", "ada/run0") for _ in range(2)}
    again = [len(urls), commits(hub, "ada/run0"), commits(hub, "ada/run0-base")]
    public = hub.repos["model", "ada/run0-base"]
    public.private = hub.repos["model", "ada/run0"].private = False
    write(home / "run", "adapter", **{**base, **changed, "base/model.safetensors": "new"})
    public = [attempt(hub, home / "run", "ada/run0", **options)[:20] for options in ({}, {"private": False})]
    by_hand("ada/run0-base", {"vocab.txt": "Edited"}, repo_type="model")
    overwritten = [attempt(hub, home / "run", "ada/run0", private=False, overwrite=asked) for asked in (False, True)]
    hub.add("model", "ada/taken-base", {"config.json": b"theirs"})
    hub.add("model", "ada/named", {"README.md": b"theirs"})
    elsewhere = {"adapter_config.json": json.dumps({"base_model_name_or_path": str(home)})}
    known = set(hub.repos)
    said = [attempt(hub, home / "run", name) for name in ("ada/taken", "ada/named")]
    said += [attempt(hub, home / "run", "ada/run1", create_pr=True)]
    said += [attempt(hub, write(home / "run", "adapter", **elsewhere), "ada/elsewhere")]
    said = [text.replace(str(home), "HOME") for text in said]
    made = sorted(name for _, name in set(hub.repos) - known)
    url = attempt(hub, home / "run", "ada/elsewhere", base_model="meta/llama")
    return {
        "lost": requests,
        "again": again,
        "public": public,
        "overwritten": [overwritten[0], sorted(tree(hub, "ada/run0-base"))],
        "base": tree(hub, "ada/run2-base"),
        "private": hub.repos["model", "ada/run1-base"].private,
        "pinned": pinned(hub, "ada/run2"),
        "said": said,
        "made": made,
        "elsewhere": [url.rpartition("/")[0], json.loads(tree(hub, "ada/elsewhere")["adapter_config.json"])],
        "folder": json.loads((home / "run/adapter_config.json").read_text())["base_model_name_or_path"] == str(home),
    }


def pinned(hub, repo_id: str) -> dict:
    config = json.loads(tree(hub, repo_id)["adapter_config.json"])
    base = hub.repos["model", f"{repo_id}-base"]
    return {**config, "revision": config["revision"] == base.branches["main"], "card": tree(hub, repo_id)["README.md"]}


def failures(hub, home: Path) -> dict:
    """What ends a push in one line, before or at a request."""
    from huggingface_hub import HfApi

    from teamsrl_hf.cli import main

    folder, said = write(home / "odd", "dataset"), {}
    hub.requests.clear()
    said["id"] = attempt(hub, folder, "ada/rows/more")
    said["token"] = attempt(hub, write(home / "leaky", "dataset", **{"report.html": f"a {TOKEN} b"}), "ada/leaky")
    said["other token"] = attempt(hub, home / "leaky", "ada/leaky", api=HfApi(token=EVES))
    asked = len(hub.requests)
    for kind in ODD:
        write(folder, "dataset")
        attempt(hub, folder, f"ada/odd-{kind}")
        write(folder, "dataset", **{"data/train.parquet": kind})
        hub.faults[:] = [(kind, "odd")]
        text = attempt(hub, folder, f"ada/odd-{kind}")
        again = attempt(hub, folder, f"ada/odd-{kind}").rpartition("/")[0]
        said[kind] = [text, hub.faults, again, tree(hub, f"ada/odd-{kind}", repo_type="dataset")["data/train.parquet"]]
    os.environ["HF_TOKEN"] = "hf_\u00e4"
    said["letters"] = attempt(hub, folder, "ada/letters")
    del os.environ["HF_TOKEN"]
    said["no token"] = attempt(hub, folder, "ada/none").partition(" or be logged")[0]
    os.environ["HF_TOKEN"] = TOKEN
    status = [main(["push", str(folder), "ada/rows/more"]), main(["push", str(home / "none"), "ada/rows"])]
    (folder / "run.json").write_text('{"arguments": {}, "summary": null}')
    status.append(main(["push", str(folder), "ada/unfinished"]))
    said = json.loads(json.dumps(said).replace(hub.url, "HUB"))
    return {"said": said, "asked": asked, "status": status}


def client() -> None:
    from hub_server import Hub

    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=f"{home}/hf", HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
        nap = time.sleep
        time.sleep = lambda seconds: nap(min(seconds, 0.01))
        hub.accounts[EVES] = "eve"
        hub.members["team"] = {"ada", "eve"}
        runs = (kinds, edits, markers, accounts, pulls, branches, bases, failures)
        print(json.dumps({run.__name__: run(hub, Path(home)) for run in runs}))


@pytest.fixture(scope="module")
def output():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env["SSL_CERT_DIR"] = str(ROOT / "tests" / "golden")  # Few certificates to read for each of many clients.
    return subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def told(output):
    assert output.returncode == 0, output.stderr[-3000:]
    assert TOKEN not in output.stdout + output.stderr
    return json.loads(output.stdout.splitlines()[-1])


WAY_OUT = "; take another name, or pass overwrite=True (--overwrite) to do so."
CHANGED = "was changed on the Hub since the last push (download what changed into the folder to keep it)"


def refusal(repo_id: str, why: str, names: str) -> str:
    return f"UserError: Repository {repo_id} {why}; the push would replace, delete or put back {names}{WAY_OUT}"


@pytest.mark.parametrize("kind", FOLDERS)
def test_nothing_but_the_kinds_own_files_is_sent(told, kind):
    assert told["kinds"]["trees"][kind] == ["README.md", *sorted(FOLDERS[kind])]


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("policy over adapter", "adapter_config.json, adapter_model.safetensors"),
        ("policy over model", "config.json"),
        ("adapter over policy", "config.json, model.safetensors"),
        ("adapter over model", "config.json, model.safetensors"),
        ("model over policy", "config.json"),
        ("model over adapter", "adapter_config.json, adapter_model.safetensors"),
    ],
)
def test_a_repository_of_another_kind_is_refused_and_both_are_named(told, case, names):
    kind, _, other = case.partition(" over ")
    why = f"holds a push of kind {other}, not {kind}"
    assert told["kinds"]["said"][case] == refusal(f"ada/{other}", why, names)


def test_a_repository_of_another_kind_is_replaced_when_that_was_asked_for(told):
    assert told["kinds"]["said"]["asked"] == [1, 2, ["README.md", "config.json", "model.safetensors"]]


def test_what_was_edited_added_or_deleted_by_hand_is_named_and_kept(told):
    found = told["edits"]
    assert found["said"] == [
        refusal("ada/edited", CHANGED, names)
        for names in (*["README.md, notes.md, report.html"] * 3, "notes.md", "data/train.parquet", "raced.md")
    ]
    assert found["kept"] == {"README.md": "Edited", "data/train.parquet": "rows", "notes.md": "Added"}


def test_edits_brought_into_the_folder_stay_and_the_rest_goes_on(told):
    assert told["edits"]["url"].startswith("/datasets/ada/edited/commit/")
    assert told["edits"]["merged"] == {"README.md": "Edited", "data/train.parquet": "more rows"}


def test_edits_are_replaced_when_that_was_asked_for(told):
    assert told["edits"]["replaced"] == {"README.md": CARD, **FOLDERS["dataset"]}


def test_what_is_left_out_is_named_and_a_base_only_where_it_does_not_travel(output):
    left_out = [line.partition(": ")[2] for line in output.stderr.splitlines() if line.startswith("Left out of")]
    assert ", ".join(sorted(NOT_OURS)) in left_out
    assert [line for line in left_out if "base/" in line] == ["base/config.json, base/model.safetensors"]


def test_overwriting_says_what_goes(output):
    names = "holds files that this project did not write; the push would replace, delete or put back README.md."
    assert f"Overwriting, as asked: repository ada/branched {names}" in output.stderr


def test_a_marker_without_a_record_is_refused_and_replaced_only_when_asked(told):
    why = "carries a .teamsrl.json without a record of files (of an earlier version, or edited)"
    refused, before, replaced, again, edited = told["markers"]["said"]
    assert (refused, before) == (refusal("ada/old", why, "vocab.txt"), 1)
    assert replaced == again
    assert edited == refusal("ada/old", why, "README.md")
    assert told["markers"]["commits"] == 3  # Its own, ours, and the edit.


def test_what_another_account_pushed_last_is_refused_but_the_same_again_is_no_commit(told):
    assert told["accounts"]["same"] == ["/datasets", 1]
    why = "was last pushed by {}, not by {}"
    assert told["accounts"]["said"] == [refusal("team/rows", why.format("ada", "eve"), "data/train.parquet"), 1]
    assert told["accounts"]["back"] == refusal("team/rows", why.format("eve", "ada"), "data/train.parquet")


def test_a_pull_request_is_ours_by_what_we_wrote_and_not_by_its_title(told):
    found = told["pulls"]
    # Also after a lost answer, with another title, and with a description of the user's own.
    assert found["urls"] == ["/ada/pulled/discussions/6"] * 2
    assert (found["touched"], found["status"]) == ([], [*["draft"] * 4, "closed", "open"])


def test_what_a_reviewer_changed_in_our_pull_request_is_named_and_kept(told):
    assert told["pulls"]["said"] == refusal("ada/pulled", CHANGED, "README.md")
    assert told["pulls"]["cards"] == [CARD, "Reviewed", "Proposed at last"]


def test_to_a_strangers_repository_no_pull_request_is_opened(told):
    why = "holds files that this project did not write"
    assert told["pulls"]["foreign"] == [refusal("bob/theirs", why, "README.md"), [], 2]


def test_of_a_strangers_repository_no_branch_is_made(told):
    why = "holds files that this project did not write"
    assert told["branches"]["said"] == refusal("ada/branched", why, "README.md")
    assert told["branches"]["made"] == ["main"]
    assert told["branches"]["cards"] == ["By hand", "On a branch of ours"]


def test_an_adapter_brings_its_base_along_in_one_commit_each_whatever_answer_is_lost(told):
    assert [case for case in told["bases"]["lost"] if case[1:] != [True, 1, 1]] == []
    struck = [case[0] for case in told["bases"]["lost"]]
    assert (struck.count("commit"), struck.count("create_repo")) == (2, 2)
    assert told["bases"]["again"] == [1, 2, 2]
    assert told["bases"]["private"] is True


def test_the_base_is_as_private_as_the_adapter_and_overwritten_with_it(told):
    assert told["bases"]["public"] == ["UserError: Repositor", "/ada/run0/commit/" + told["bases"]["public"][1][17:]]
    refused, files = told["bases"]["overwritten"]
    assert refused == refusal("ada/run0-base", CHANGED, "vocab.txt")
    assert files == ["README.md", "config.json", "model.safetensors"]


def test_the_base_has_a_card_and_the_adapter_names_it_and_its_commit(told):
    base = told["bases"]["base"]
    assert base.pop("README.md").startswith("---\nlibrary_name: transformers\nlicense: mit\n")
    assert base == {"config.json": '{"model_type": "llama"}', "model.safetensors": "2"}
    front = "license: mit\nbase_model: ada/run2-base\nbase_model_relation: adapter"
    assert told["bases"]["pinned"] == {
        **{"base_model_name_or_path": "ada/run2-base", "revision": True, "salt": 2},
        "card": f"---\n{front}\n---\n# A card\n",
    }


def test_where_the_base_or_the_adapter_cannot_go_nothing_is_sent(told):
    why = "holds files that this project did not write"
    taken, named, pull, elsewhere = told["bases"]["said"]
    assert taken == refusal("ada/taken-base", why, "config.json")
    assert named == refusal("ada/named", why, "README.md")
    assert pull.startswith("UserError: A pull request can't bring the base model in 'HOME/run/base' along;")
    assert elsewhere.startswith("UserError: The base model of 'HOME/run' is a folder of this machine, 'HOME',")
    assert told["bases"]["made"] == ["ada/taken"]


def test_a_base_named_by_the_user_is_what_the_adapter_names_there_and_not_here(told):
    config = {"base_model_name_or_path": "meta/llama", "revision": None}
    assert told["bases"]["elsewhere"] == ["/ada/elsewhere/commit", config]
    assert told["bases"]["folder"] is True


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_answer_ends_in_one_line_and_the_next_push_finishes(told, kind):
    text, left, again, content = told["failures"]["said"][kind]
    absorbed = kind in ("tree", "resolve_get")  # They are held against what else is known, and asked for again.
    assert text.startswith(f"/datasets/ada/odd-{kind}/commit/" if absorbed else "RuntimeError: The ")
    assert "\n" not in text
    assert (left, again, content) == ([], f"/datasets/ada/odd-{kind}/commit", kind)


def test_what_was_given_wrongly_is_told_before_any_request(told, output):
    said = told["failures"]["said"]
    assert said["id"].startswith("UserError: The repository 'ada/rows/more' is no Hub id; give USER/NAME.")
    assert (
        said["token"]
        == said["other token"]
        == ("UserError: report.html holds the Hub token in use, so nothing was sent; remove it from the file.")
    )
    assert told["failures"]["asked"] == 0
    assert told["failures"]["status"] == [2, 2, 2]
    assert "is not finished; run its command again, then push." in output.stderr
    assert "Traceback" not in output.stderr


def test_a_token_that_cannot_be_sent_or_is_missing_ends_in_one_line(told):
    said = told["failures"]["said"]
    assert said["letters"].startswith("RuntimeError: The push to ada/letters failed at HUB: UnicodeEncodeError: ")
    assert said["no token"] == (
        "RuntimeError: The push to ada/none failed at HUB: LocalTokenNotFoundError: Token is required to call the "
        "/whoami-v2 endpoint, but no token found. You must provide a token"
    )


if __name__ == "__main__":
    client()
