import pytest

from teamsrl_hf.baselines import paper_chooser, uniform_chooser
from teamsrl_hf.operations import OPERATIONS
from teamsrl_hf.types import State


def test_the_uniform_chooser_takes_each_operation_about_equally_often():
    choose = uniform_chooser(OPERATIONS)
    actions = choose([State("x")] * 6000, [i / 6000 for i in range(6000)])
    assert [actions.count(k) for k in range(6)] == [1000] * 6


def test_the_papers_schedule_forces_breadth_at_the_second_and_fifth_step_and_nowhere_else():
    choose = paper_chooser(OPERATIONS)
    for step in range(6):
        names = {OPERATIONS[choose([State("x", step=step)], [u / 100])[0]].name for u in range(100)}
        assert (names == {"breadth"}) is (step in (1, 4))
        assert ("breadth" in names) is (step in (1, 4))


def test_the_papers_schedule_refuses_operations_it_does_not_know():
    with pytest.raises(ValueError, match="complicate_input, concretize, increase_reasoning"):
        paper_chooser(OPERATIONS[:3])
