"""Every request of a push fails in turn, in every way a Hub fails: the push ends done, or says so and is finished by a
second call; nobody ever sees half a repository.

Run as a script, this file is the client: it pushes to a Hub in its own process and prints each trial as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parent.parent
TOKEN = "hf_planted2planted2planted2"
PASSING = ("500", "503", "429", "reset", "lost", "412", "hang")
LASTING = ("401", "403")
FOLDERS = {
    "dataset": ("push_dataset", {"data/train.parquet": 3_000, "trajectories/train.parquet": 2_000, "report.html": 50}),
    "policy": ("push_policy", {"config.json": 60, "model.safetensors": 3_000}),
    "adapter": ("push_adapter", {"adapter_config.json": 60, "adapter_model.safetensors": 3_000}),
    "model": ("push_policy", {"config.json": 60, "model.safetensors": 3_000, "tokenizer.json": 90}),
}
CARD = "---\nlicense: mit\n---\n# A card\n"
MODES = {
    "lfs": {"HF_HUB_DISABLE_XET": "1"},
    # No decompression in the test server, and no minutes of waiting in the client.
    "xet": {
        "HF_XET_XORB_COMPRESSION_POLICY": "none",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
        "HF_XET_CLIENT_READ_TIMEOUT": "1s",
    },
}


def write_folder(folder: Path, kind: str, salt: str) -> dict[str, bytes]:
    # New content for each trial: Xet remembers what it sent.
    random = Random(salt)
    contents = {"README.md": CARD.encode()}
    for name, size in FOLDERS[kind][1].items():
        contents[name] = random.randbytes(size)
        if name.endswith(".json"):
            model_type = "teamsrl_operation_policy" if kind == "policy" else "llama"
            contents[name] = json.dumps({"model_type": model_type, "salt": salt}).encode()
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return contents


def attempt(push, folder: Path, repo_id: str) -> tuple[str, str]:
    try:
        return "done", push(folder, repo_id, tag="v1", collection="Rows", patience=30)
    except (RuntimeError, ValueError) as error:
        return "said", f"{type(error).__name__}: {error}"


def state(hub, kind: str, repo_id: str, contents: dict[str, bytes]) -> str:
    """What a reader of the main branch sees."""
    repo = hub.repos.get(("dataset" if kind == "dataset" else "model", repo_id))
    if repo is None:
        return "absent"
    seen = {
        n: c for n, c in repo.commits[repo.branches["main"]].items() if n not in (".gitattributes", ".teamsrl.json")
    }
    return "empty" if not seen else "whole" if seen == contents else f"half: {sorted(seen)}"


def trial(hub, push, kind: str, folder: Path, number: int, fault: str) -> dict | None:
    """One push with one fault at its n-th request, and a second one; None when it had fewer requests."""
    repo_id = f"ada/{kind}-{number}-{fault}"
    for memory in (hub.requests, hub.objects, hub.xorbs, hub.collections):
        memory.clear()
    hub.faults[:] = [(number, fault)]
    contents = write_folder(folder, kind, f"{number} {fault}")
    outcome, text = attempt(push, folder, repo_id)
    if hub.faults:
        return None
    struck, between = hub.requests[number][0], state(hub, kind, repo_id, contents)
    again, url = attempt(push, folder, repo_id)
    repo = hub.repos["dataset" if kind == "dataset" else "model", repo_id]
    return {
        "at": f"{kind} {struck} {fault}",
        "fault": fault,
        "outcome": outcome,
        "text": text.replace(repo_id, "ID"),
        "between": between,
        "again": again,
        "url": url.endswith(repo.branches["main"]),
        "after": state(hub, kind, repo_id, contents),
        "commits": len(repo.commits) - 1,
        "tagged": repo.tags == {"v1": repo.branches["main"]},
        "gathered": [item["id"] == repo_id for found in hub.collections.values() for item in found["items"]],
    }


def client(mode: str, kinds: list[str], faults: list[str]) -> None:
    from hub_server import Hub

    nap = time.sleep
    time.sleep = lambda seconds: nap(min(seconds, 0.005))
    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=home, HF_TOKEN=TOKEN, **MODES[mode])
        from teamsrl_hf.hub import push as module

        module.TIME_LIMIT, module.UPLOAD_LIMIT = 0.3, 4.0
        for kind in kinds:
            folder = Path(home) / kind
            push = getattr(module, FOLDERS[kind][0])
            for fault in faults:
                for number in range(60):
                    told = trial(hub, push, kind, folder, number, fault)
                    if told is None:
                        break
                    print(json.dumps(told))
        leaks = [str(file) for file in Path(home).rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
        print(json.dumps({"leaks": leaks}))


def trials(mode: str, kinds: list[str], faults: tuple[str, ...]) -> list[dict]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {**kept, **quiet, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    # Each client of httpx reads all certificates of the machine, which takes longer than a push.
    env["SSL_CERT_DIR"] = str(ROOT / "tests" / "golden")
    command = [sys.executable, __file__, mode, json.dumps(kinds), json.dumps(faults)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=230)
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    *told, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert end == {"leaks": []}
    return told


def check(told: list[dict]) -> None:
    assert [t["at"] for t in told if t["between"] not in ("absent", "empty", "whole")] == []
    # A fault that passes is absorbed; one that lasts is told in one line, and the next call finishes the push.
    assert [t for t in told if t["fault"] in PASSING and t["outcome"] != "done"] == []
    said = [t["text"] for t in told if t["outcome"] == "said"]
    assert [text for text in said if not text.startswith("RuntimeError: The Hub refused the push to ID: 40")] == []
    assert [text for text in said if "\n" in text or len(text) > 700] == []
    finished = {"again": "done", "url": True, "after": "whole", "commits": 1, "tagged": True, "gathered": [True]}
    assert [t for t in told if {key: t[key] for key in finished} != finished] == []


def test_a_push_survives_a_lost_answer_and_a_refusal_at_every_request():
    told = trials("lfs", ["dataset"], ("lost", "403"))
    check(told)
    struck = {t["at"].split()[1] for t in told}
    assert {
        "create_repo",
        "info",
        "tree",
        "refs",
        "preupload",
        "lfs_batch",
        "lfs_put",
        "lfs_verify",
        "commit",
    } <= struck
    assert {"tag", "create_collection", "collection_item"} <= struck


def test_with_xet_a_push_survives_an_error_at_every_request():
    told = trials("xet", ["adapter"], ("503",))
    check(told)
    assert {"xet_token", "xet_xorb", "xet_shard"} <= {t["at"].split()[1] for t in told}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", FOLDERS)
def test_every_kind_of_push_survives_every_fault_with_xet_and_without(mode, kind):
    told = trials(mode, [kind], (*PASSING, *LASTING))
    check(told)
    assert len(told) >= 9 * 14
    forbidden = [t["text"] for t in told if t["at"] == f"{kind} commit 401"]
    assert "Log in with `hf auth login`, or set HF_TOKEN." in forbidden[0]


if __name__ == "__main__":
    client(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
