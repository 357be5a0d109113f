import asyncio
import json
import os
import subprocess
import sys

import pytest

from teamsrl_hf import Completion, Ledger, Request, ScriptedGenerator
from teamsrl_hf.cli import main
from teamsrl_hf.models.accounting import outcome, report, spent
from teamsrl_hf.models.budget import Price
from teamsrl_hf.models.parts import open_part, prepare_parts
from teamsrl_hf.runs import finish_run, open_run


def _ask(path, role, answers):
    """Buy an answer after the other; prices of 1 and 2 per million tokens."""
    with Ledger(path, prices={"m": Price(1.0, 2.0)}) as ledger:
        model = ledger.record(ScriptedGenerator(answers, model="m"))
        for i in range(len(answers)):
            asyncio.run(model(Request(role, ({"role": "user", "content": f"{path.name} {role} {i}"},))))


def _dataset(folder, rows):
    """A finished evolution that took 5 calls of the expert, one tried four times and one failed, and 2 reviews."""
    folder.mkdir()
    open_run(folder, {"seeds": "s"})
    answer = Completion("x", "m", 1000, 500)
    _ask(folder / "ledger.sqlite", "expert", [answer] * 3 + [Completion("x", "m", 1000, 500, attempts=4)])
    _ask(folder / "ledger.sqlite", "reviewer", [Completion("Equal", "m", 200, 0)] * 2)
    _ask(folder / "ledger.sqlite", "judge", [Completion("", "m", 1000, 0, error="HTTP 500", attempts=2)])
    finish_run(folder, {"rows": rows, "rejections": {}})


def test_requests_per_row_and_the_share_of_evol_instruct_count_retries_failures_and_every_role(tmp_path):
    _dataset(tmp_path / "out", rows=5)
    found = report(tmp_path / "out")
    assert found["rows"] == 5
    assert found["requests_per_row"] == {"expert": 7 / 5, "judge": 2 / 5, "reviewer": 2 / 5, "all": 11 / 5}
    assert found["share_of_evol_instruct"]["all"] == pytest.approx(11 / 5 / 2.496)
    assert found["roles"]["expert"]["cost"] == pytest.approx(4 * (1000 * 1e-6 + 500 * 2e-6))
    everything = found["roles"]["all"]
    assert (everything["calls"], everything["attempts"], everything["errors"]) == (7, 11, 1)


def test_a_row_for_every_2_496_requests_is_what_evol_instruct_took(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    open_run(folder, {})
    _ask(folder / "ledger.sqlite", "expert", ["x"] * 312)
    finish_run(folder, {"rows": 125})
    assert report(folder)["share_of_evol_instruct"]["all"] == pytest.approx(1.0)


def test_the_command_prints_a_table_and_the_formula(tmp_path, capsys):
    _dataset(tmp_path / "out", rows=5)
    assert main(["ledger", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["expert", "4", "3", "0"],
        ["judge", "1", "1", "1"],
        ["reviewer", "2", "0", "0"],
        ["all", "7", "4", "1"],
    ]
    assert lines[1].split()[4:7] == ["4,000", "2,000", "0.0080"]
    assert lines[6] == "requests per accepted row  expert 1.400, judge 0.400, reviewer 0.400, all 2.200"
    assert lines[7] == "share of Evol-Instruct     expert 0.561, judge 0.160, reviewer 0.160, all 0.881"
    assert lines[8].startswith("share = requests / (rows x 624,000 / 250,000): Evol-Instruct asked 624,000 times")


def test_the_command_prints_json(tmp_path, capsys):
    _dataset(tmp_path / "out", rows=5)
    assert main(["ledger", "--json", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == report(tmp_path / "out")
    assert printed["roles"]["reviewer"]["prompt_tokens"] == 400


def test_a_bare_ledger_an_unfinished_run_and_one_without_rows_say_that_rows_are_missing(tmp_path, capsys):
    _ask(tmp_path / "ledger.sqlite", "expert", ["x"])
    for path in (tmp_path, tmp_path / "ledger.sqlite"):
        main(["ledger", str(path)])
        assert "not known, no finished dataset stands beside this ledger" in capsys.readouterr().out
    (tmp_path / "run.json").write_text('{"arguments": {}, "summary": null}')
    main(["ledger", str(tmp_path)])
    assert "not known, no finished dataset stands beside this ledger" in capsys.readouterr().out
    finish_run(tmp_path, {"rows": 0})
    main(["ledger", str(tmp_path)])
    assert "not known, the run accepted none" in capsys.readouterr().out


def test_ledgers_of_several_processes_are_added_up_and_what_both_hold_is_counted_once(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        identity = prepare_parts(ledger, 2)
    for rank, count in enumerate((2, 3)):
        open_part(tmp_path / "ledger.sqlite", identity, rank).close()
        _ask(tmp_path / f"ledger-{rank}.sqlite", "expert", ["x"] * count)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.merge([tmp_path / "ledger-0.sqlite"])
    assert report(tmp_path)["roles"]["expert"]["calls"] == 5


def test_the_rows_of_a_quickstart_are_found_and_its_training_is_named(tmp_path, capsys):
    open_run(tmp_path, {"command": "quickstart"})
    _ask(tmp_path / "ledger.sqlite", "instructor", ["x"] * 4)
    finish_run(tmp_path, {"policy": {}, "dataset": {"rows": 2}})
    assert report(tmp_path)["requests_per_row"] == {"instructor": 2.0, "all": 2.0}
    main(["ledger", str(tmp_path)])
    assert "calls of policy training (instructor, reviewer) are among them" in capsys.readouterr().out


def test_tokens_that_were_estimated_are_said_to_be(tmp_path, capsys):
    class Silent:
        model = "silent"

        async def __call__(self, request):
            return Completion("A wren.", "silent")

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(ledger.record(Silent())(Request("expert", ({"role": "user", "content": "Name a bird."},))))
    main(["ledger", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "tokens of 1 calls are estimated, since the server reported too few" in printed
    assert "with these estimates: 6 tokens, cost 0.0000; without: 0 tokens, cost 0.0000" in printed


def test_money_is_told_with_estimates_and_without_and_so_are_tokens_from_a_cache(tmp_path, capsys):
    class Cut:
        model = "m"

        async def __call__(self, request):
            return Completion("A wren.", "m", 3000, 2000, attempts=2, cached_tokens=500, estimated_tokens=(1000, 1500))

    with Ledger(tmp_path / "ledger.sqlite", prices={"m": Price(1.0, 2.0, cached_prompt=0.5)}) as ledger:
        asyncio.run(ledger.record(Cut())(Request("expert", ({"role": "user", "content": "Name a bird."},))))
        assert outcome(spent(ledger)).splitlines()[1] == "cost      0.00675, of it 0.004 estimated"
    main(["ledger", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "prompt tokens from the server's cache: 500" in printed
    assert "with these estimates: 5,000 tokens, cost 0.0067; without: 2,500 tokens, cost 0.0027" in printed


def test_a_folder_without_a_ledger_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no ledger at"):
        report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["ledger"], ["ledger", "--json"], ["--help"]])
def test_a_command_whose_reader_has_left_ends_quietly_as_with_sigpipe(tmp_path, words):
    _ask(tmp_path / "ledger.sqlite", "expert", ["x"])
    reader, writer = os.pipe()
    os.close(reader)
    options = [] if words == ["--help"] else [str(tmp_path)]
    command = [sys.executable, "-m", "teamsrl_hf.cli", *words, *options]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
