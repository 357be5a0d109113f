"""A run shows its counts from the first call on, and warns as soon as it goes wrong."""

import io
import time

import pytest

from teamsrl_hf import Candidate, Example, Ledger, Rejection, Review, Seed, Transition
from teamsrl_hf.evolve.progress import Watch, progress_bar
from teamsrl_hf.publish.counts import DatasetStatistics

PASSED = Review("not_equal", (), "judge")


def _result(reason=None, review=PASSED, operation="deepen"):
    transition = Transition("Name a bird.", operation, "Name two birds.", review, "writer")
    candidate = Candidate("r1", Seed("s1", "Name a bird."), "s1", 0, (operation,), transition, "A wren.")
    return Example(candidate) if reason is None else Rejection(candidate, reason)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_counts_rows_rejections_calls_and_tokens_before_a_seed_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := _Terminal())
    statistics = DatasetStatistics()
    with Ledger(tmp_path / "ledger.sqlite") as ledger, progress_bar("Evolving", 3, ledger, statistics):
        statistics.add([_result(), _result("near_duplicate"), _result("near_duplicate")])
        ledger.calls, ledger.tokens = 7, 1234
        until = time.monotonic() + 10
        while "tokens=1234" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    shown = terminal.getvalue()
    assert "| 0/3 [" in shown
    assert "rows=1, near_duplicate=2, calls=7, tokens=1234" in shown


def test_a_hidden_bar_shows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := _Terminal())
    with Ledger(tmp_path / "ledger.sqlite") as ledger, progress_bar("Evolving", 3, ledger, hidden=True) as advance:
        advance(3)
    assert terminal.getvalue() == ""


CUT = _result("cut_off", Review("unreadable", ("cut_off",)))
UNREADABLE = _result("unreadable", Review("unreadable", (), "judge"))
UNCHANGED = _result("unchanged", Review("equal", ("unchanged",)), "breadth")


@pytest.mark.parametrize(
    ("results", "warning"),
    [
        ([_result(), CUT] * 10, "10 of 20 rewrites are cut off; raise max_tokens, or set retry_cut"),
        ([_result(), UNREADABLE] * 10, "10 of 20 verdicts can't be read; use another reviewer"),
        ([UNCHANGED] * 50, "no rewrite by breadth has passed in 50 tries; check it, or leave it out"),
    ],
)
def test_a_warning_comes_as_soon_as_it_is_due_and_once(results, warning, caplog):
    watch = Watch()
    for result in results[:-1]:
        watch.add([result])
    assert caplog.messages == []
    watch.add([results[-1]])
    assert caplog.messages == [warning]
    watch.add(results)
    assert caplog.messages == [warning]


def test_a_sound_run_gives_no_warning(caplog):
    watch = Watch()
    answer = _result("answer_cut_off")
    failed = _result("call_failed", Review("unreadable", ("call_failed",), "judge", "HTTP 500"))
    watch.add([_result(), _result(), CUT, UNREADABLE, UNCHANGED, answer, failed, failed, failed] * 30)
    assert caplog.messages == []
