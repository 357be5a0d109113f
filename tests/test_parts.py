"""Ledgers of several processes: a launch's own are merged, counted and deleted, and no file of anybody else's."""

import asyncio
import shutil

import pytest
from asked import EVOLVE_RULES

from teamsrl_hf import Ledger, Request, ScriptedGenerator
from teamsrl_hf.cli import main
from teamsrl_hf.errors import UserError
from teamsrl_hf.models.accounting import report
from teamsrl_hf.models.parts import merge_parts, open_part, part_paths, prepare_parts

MODEL = ScriptedGenerator(lambda request: "Because.")


def _ask(ledger, *texts):
    for text in texts:
        asyncio.run(ledger.record(MODEL)(Request("expert", ({"role": "user", "content": text},))))


def _launch(path, size):
    """What a launch leaves that is stopped before its parts are merged; each process has bought two answers."""
    with Ledger(path) as ledger:
        identity = prepare_parts(ledger, size)
    for rank in range(size):
        with open_part(path, identity, rank, read_from=[path]) as part:
            _ask(part, "asked by all", f"asked by {rank} of {size}")


def _as_killed(ledger):
    """Leave a ledger as a process that is killed now would: what it wrote last is in the write-ahead log alone."""
    kept = ledger.path.parent / "kept"
    kept.mkdir()
    found = [ledger.path.with_name(ledger.path.name + ending) for ending in ("", "-wal")]
    for file in found:
        shutil.copy(file, kept)
    ledger.close()
    for file in found:
        shutil.move(kept / file.name, file)
    kept.rmdir()


def _strangers(folder):
    """Files of others whose names are those of parts; their contents by name."""
    with Ledger(folder / "ledger-2024.sqlite") as ledger:
        _ask(ledger, "of another run")
    with Ledger(folder / "ledger-6.sqlite") as ledger:
        prepare_parts(ledger, 1)  # A run of several processes has used it.
        _ask(ledger, "of another run")
    (folder / "ledger-7.sqlite").write_text("no ledger at all")
    (folder / "ledger-8.sqlite").touch()
    ledger = Ledger(folder / "ledger-9.sqlite")
    _ask(ledger, "of another run that was killed")
    _as_killed(ledger)
    return _contents(folder)


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_are_merged_once_and_then_gone(tmp_path):
    path = tmp_path / "ledger.sqlite"
    _launch(path, 3)
    assert part_paths(path) == [tmp_path / f"ledger-{rank}.sqlite" for rank in range(3)]
    with Ledger(path) as ledger:
        merge_parts(ledger)
        merge_parts(ledger)
        assert ledger.calls == 3 + 3  # What all three bought was bought three times.
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_files_of_others_are_neither_merged_nor_counted_nor_changed(tmp_path):
    before = _strangers(tmp_path)
    assert "ledger-9.sqlite-wal" in before
    path = tmp_path / "ledger.sqlite"
    _launch(path, 2)
    assert report(tmp_path)["roles"]["expert"]["calls"] == 4
    assert report(path)["roles"]["expert"]["calls"] == 4
    with Ledger(path) as ledger:
        merge_parts(ledger)
        assert ledger.calls == 4
    after = _contents(tmp_path)
    del after["ledger.sqlite"]
    assert after == before


def test_a_copy_of_a_ledger_is_a_backup_and_no_part(tmp_path):
    path = tmp_path / "ledger.sqlite"
    _launch(path, 2)
    shutil.copy(path, tmp_path / "ledger-2023.sqlite")
    shutil.copy(tmp_path / "ledger-0.sqlite", tmp_path / "ledger-5.sqlite")
    shutil.copy(tmp_path / "ledger-0.sqlite", tmp_path / "ledger-00.sqlite")
    assert part_paths(path) == [tmp_path / "ledger-0.sqlite", tmp_path / "ledger-1.sqlite"]


def test_what_a_killed_process_had_bought_is_merged(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        identity = prepare_parts(ledger, 4)
    part = open_part(path, identity, 3)
    _ask(part, "asked last")
    _as_killed(part)
    with Ledger(path) as ledger:  # As of a launch of fewer processes.
        prepare_parts(ledger, 1)
        assert ledger.calls == 1
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_process_killed_while_it_made_its_part_leaves_nothing_in_the_way(tmp_path):
    path = tmp_path / "ledger.sqlite"
    (tmp_path / ".ledger-0.sqlite.part").write_text("half a file")
    (tmp_path / ".ledger-0.sqlite.part-wal").write_text("half a log")
    _launch(path, 1)
    assert report(path)["roles"]["expert"]["calls"] == 2


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
def test_another_runs_file_where_a_part_would_lie_is_refused_by_name_and_left_as_it_was(ending, tmp_path):
    path, stranger = tmp_path / "ledger.sqlite", tmp_path / f"ledger-1.sqlite{ending}"
    stranger.write_bytes(b"of another run")
    with Ledger(path) as ledger:
        identity = ledger.identity
        with pytest.raises(UserError, match=rf"{stranger} is in use by another process, or another run left it; move"):
            prepare_parts(ledger, 2)
    with pytest.raises(UserError, match=str(stranger)):
        open_part(path, identity, 1)
    assert stranger.read_bytes() == b"of another run"
    assert not {file.name for file in tmp_path.iterdir()} - {"ledger.sqlite", stranger.name}


def test_another_runs_ledger_where_a_part_would_lie_is_refused_even_if_it_is_a_part(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    _launch(tmp_path / "elsewhere" / "ledger.sqlite", 1)
    shutil.move(tmp_path / "elsewhere" / "ledger-0.sqlite", tmp_path / "ledger-0.sqlite")
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(UserError, match=r"ledger-0\.sqlite is in use"):
        prepare_parts(ledger, 1)


def test_a_run_leaves_another_runs_ledger_beside_its_own_alone(tmp_path):
    rules = [*EVOLVE_RULES, "--chooser", "uniform"]
    (tmp_path / "seeds.jsonl").write_text('{"instruction": "Name three birds that live in Peru."}\n')
    rules += ["--seeds", str(tmp_path / "seeds.jsonl")]
    for name, seed in (("ledger-2024", "1"), ("ledger", "2")):
        options = ["--ledger", str(tmp_path / f"{name}.sqlite"), "--output_dir", str(tmp_path / name), "--seed", seed]
        assert main(["evolve", *rules, *options]) == 0
        if name == "ledger-2024":
            before = (tmp_path / "ledger-2024.sqlite").read_bytes()
    assert (tmp_path / "ledger-2024.sqlite").read_bytes() == before
