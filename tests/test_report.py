"""The lineage page, as a reader sees it: Chromium opens it, searches, filters and reads a chain."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM, browse, chromium

from teamsrl_hf import (
    OPERATIONS,
    Candidate,
    DatasetEvolver,
    DatasetWriter,
    EvolverConfig,
    Example,
    Rejection,
    Review,
    Rulebook,
    Seed,
    Transition,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.publish.report import report, write_report

ROOT = Path(__file__).resolve().parent.parent
NODE = shutil.which("node")
HOSTILE = (
    "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'> {{ 7 * 7 }} \u2028 \u202eevil"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
READY = "document.documentElement?.dataset.ready"
OPTION = "(id, name) => [...document.getElementById(id).options].find((o) => o.text === name).value"
SET = "(id, value) => { const e = document.getElementById(id); e.value = value; (e.oninput || e.onchange)(); }"


def result(
    seed, step, operation, rewrite, parent=None, reason=None, response="An answer.", before="Name a bird.", edit=""
):
    verdict = "not_equal" if reason is None else "equal"
    transition = Transition(before, operation, rewrite, Review(verdict, (), "gpt"), "gpt", edit=edit)
    candidate = Candidate(
        f"{seed}-{step}", Seed(seed, "Name a bird."), parent or seed, step, (operation,), transition, response, "gpt"
    )
    return Example(candidate) if reason is None else Rejection(candidate, reason)


CHAINS = [
    [
        result("s1", 0, "deepen", "Name a bird of prey.", edit="birds <b>of</b> prey"),
        result("s1", 1, "breadth", "Name a bird of prey.", "s1-0", "unchanged", "", "Name a bird of prey."),
        result("s1", 2, "concretize", "Name a bird of prey in Peru.", "s1-0", before="Name a bird of prey."),
    ],
    [result("s2", 0, "deepen", HOSTILE, response=HOSTILE + "x" * 30_000)],
]


def write(folder: Path, chains) -> Path:
    with DatasetWriter(folder) as writer:
        for chain in chains:
            writer.write(chain)
        writer.finish(lambda configs: "---\nlicense: mit\n---\n# Rows\n")
    return write_report(folder)


def packed(page: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(re.search(r'id="data">([^<]*)</script>', page)[1])))


def test_the_page_holds_each_text_once_and_each_step_with_its_parent(tmp_path):
    data = packed(write(tmp_path, CHAINS).read_text())
    assert data["texts"][:4] == ["Name a bird.", "Name a bird of prey.", "birds <b>of</b> prey", "An answer."]
    assert [data["texts"][i] for i in data["edit"]] == ["birds <b>of</b> prey", "", "", ""]
    assert data["parent"] == [-1, 0, 0, -1]
    assert [data["outcomes"][i] for i in data["outcome"]] == ["accepted", "unchanged", "accepted", "accepted"]
    assert [data["names"][i] for i in data["operation"]] == ["deepen", "breadth", "concretize", "deepen"]
    assert data["texts"][data["response"][3]].endswith(" […10,102 characters more]")


def test_nothing_of_a_text_is_in_the_page_as_such_and_the_same_rows_make_the_same_page(tmp_path):
    page = write(tmp_path, CHAINS).read_text()
    assert "window.broken" not in page
    assert page.count("</script>") == 2
    assert page == write_report(tmp_path).read_text()


def test_a_page_that_would_grow_too_large_tells_what_it_leaves_out():
    rows = [
        {"id": str(i), "seed_id": f"s{i // 3}", "parent_id": "", "step": i % 3, "operation": "deepen"}
        for i in range(9)
    ]
    rest = dict.fromkeys(
        ("seed_instruction", "seed_input", "instruction", "rewrite", "response", "verdict", "reason"), "a"
    )
    data = packed(report(iter({**row, **rest, "accepted": False} for row in rows), total=9, limit=4))
    assert (len(data["step"]), data["left_out"]) == (6, 3)  # The chain that had begun is whole.


def test_a_folder_without_trajectories_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no trajectories/"):
        write_report(tmp_path)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Name a bird.", "Name a bird of prey.", "Name a bird [of prey]."),
        (
            "天空为什么是蓝色的？",
            "傍晚的天空为什么是红色的？请举一个例子。",
            "[傍晚的]天空为什么是{蓝色}[红色]的？[请举一个例子。]",
        ),
        ("空はなぜ青いのですか。", "夕方の空はなぜ赤いのですか。", "[夕方の]空はなぜ{青い}[赤い]のですか。"),
        ("ทำไมท้องฟ้าเป็นสีฟ้า", "ทำไมท้องฟ้าตอนเย็นเป็นสีแดง", "ทำไมท้องฟ้า[ตอนเย็น]เป็นสี{ฟ้า}[แดง]"),
        ("आकाश नीला क्यों है?", "शाम को आकाश लाल क्यों है?", "[शाम को ]आकाश {नीला }[लाल ]क्यों है?"),
        ("لماذا السماء زرقاء؟", "لماذا السماء حمراء عند الغروب؟", "لماذا السماء {زرقاء}[حمراء عند الغروب]؟"),
        ("Name a bird.", "Prove Fermat's last theorem.", None),
    ],
)
def test_what_a_step_changed_is_marked_by_words_in_any_script(before, after, expected):
    page = "globalThis.document = { getElementById: () => ({ remove() {} }) };\n"
    page += (ROOT / "model_cards" / "report.js").read_text(encoding="utf-8")
    page += f"\nconsole.log(JSON.stringify(changes({json.dumps(before)}, {json.dumps(after)})));"
    ran = subprocess.run([NODE, "-"], input=page, capture_output=True, encoding="utf-8", timeout=60, check=True)
    parts = json.loads(ran.stdout)
    marks = {"same": "{}", "ins": "[{}]", "del": "{{{}}}"}
    assert (parts and "".join(marks[kind].format(text) for kind, text in parts)) == expected


@pytest.fixture(scope="module")
def browser():
    with chromium() as address:
        yield address


@needs_chromium
def test_a_reader_searches_filters_and_opens_a_chain_and_no_text_runs(browser, tmp_path):
    async def visit(page):
        told, of = {}, "document.getElementById('told').textContent"
        await page.until(READY)
        told["first"] = await page.evaluate(of)
        told["chain"] = await page.evaluate("document.getElementById('chain').innerText")
        told["inserted"] = await page.evaluate("[...document.querySelectorAll('ins')].map((e) => e.textContent)")
        told["nested"] = await page.evaluate("document.querySelectorAll('.kids .kids .node').length")
        await page.picture(tmp_path / "page.png")
        await page.evaluate(f"({SET})('search', 'in PERU')")
        await page.until("document.querySelectorAll('mark').length > 0")
        told["searched"] = await page.evaluate(of)
        await page.evaluate(f"({SET})('search', '')")
        await page.until("document.querySelectorAll('.row').length === 2")
        await page.evaluate(f"({SET})('operation', ({OPTION})('operation', 'breadth'))")
        told["by_operation"] = await page.evaluate(of)
        await page.evaluate(f"({SET})('operation', '')")
        await page.evaluate(f"({SET})('verdict', ({OPTION})('verdict', 'equal'))")
        told["by_verdict"] = await page.evaluate(of)
        await page.evaluate(f"({SET})('verdict', '')")
        await page.evaluate("document.querySelectorAll('.row')[1].click()")
        told["hostile"] = await page.evaluate("document.querySelector('.kids .text').textContent")
        told["broken"] = await page.evaluate("[typeof window.broken, document.images.length, document.scripts.length]")
        return told, page.errors, page.requests

    file = write(tmp_path, CHAINS)
    told, errors, requests = browse(browser, file, visit)
    assert told["first"] == "2 chains, 4 steps, 3 rows accepted"
    assert "step 2\nbreadth\nverdict: equal\nunchanged" in told["chain"]
    assert told["inserted"] == ["of prey", "in Peru"]
    assert "the model wrote: birds <b>of</b> prey" in told["chain"]
    assert told["nested"] == 2
    assert told["searched"] == "1 chain, 1 step, 1 row accepted"
    assert told["by_operation"] == "1 chain, 1 step, 0 rows accepted"
    assert told["by_verdict"] == "1 chain, 1 step, 0 rows accepted"
    assert "window.broken = 1" in told["hostile"]
    assert "U+2028" in told["hostile"]
    assert "U+202Eevil" in told["hostile"]
    assert told["broken"] == ["undefined", 0, 1]
    assert errors == []
    assert requests == [file.resolve().as_uri()]
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@needs_chromium
def test_fifty_thousand_rows_are_there_in_three_seconds(browser, tmp_path):
    seeds, model = load_seeds()[:40], Rulebook()
    evolver = DatasetEvolver(model, model, uniform_chooser(OPERATIONS), OPERATIONS, EvolverConfig())
    few = [one for chain in evolver.evolve(seeds) for one in chain]
    (tmp_path / "report.html").write_text(report(many(few, 50_000), 50_000))

    async def visit(page):
        ready = int(await page.until(READY))
        started = await page.evaluate("performance.now()")
        await page.evaluate(f"({SET})('search', 'number 4242 of')")
        await page.until("document.querySelectorAll('.row').length === 1")
        return ready, await page.evaluate("performance.now()") - started, await page.evaluate("data.step.length")

    ready, searched, steps = browse(browser, tmp_path / "report.html", visit)
    assert steps == 50_000
    assert ready < 3_000
    assert searched < 5_000


def many(results, count: int):
    """Rows by the thousand: those of a run again and again, each time with texts of their own."""
    from teamsrl_hf.publish.dataset_writer import trajectory_row

    rows = [trajectory_row(result) for result in results]
    for i in range(count):
        turn, row = divmod(i, len(rows))
        own = {key: f"{rows[row][key]}-{turn}" for key in ("id", "seed_id", "parent_id")}
        texts = {key: f"{rows[row][key]} Number {i} of many." for key in ("rewrite", "response")}
        yield {**rows[row], **own, **texts}
