"""Rewards from a student's answers: what they pay, which calls they make, and what they leave unsaid."""

import math

import pytest
from real_model import smollm2

from teamsrl_hf import (
    CallsRefused,
    Completion,
    Ledger,
    Review,
    Sampling,
    Seed,
    Trajectory,
    Transition,
    UserError,
    gap_reward,
    learnability_reward,
    make_generator,
    verified_reward,
)
from teamsrl_hf.cli import main
from teamsrl_hf.environment.rewards import call_rewards
from teamsrl_hf.models.accounting import report
from teamsrl_hf.runs import read_run
from teamsrl_hf.verifiers import verifier

NO_COMMA = verifier("punctuation:no_comma")
SHORT = verifier("length_constraints:number_words", num_words=3, relation="less than")


class Student:
    """Answers by sample index; an index past the end, and every text in `broken`, is a call that fails."""

    def __init__(self, *answers, model="student", broken=()):
        self.model, self.answers, self.broken, self.requests = model, answers, broken, []

    async def __call__(self, request):
        self.requests.append(request)
        if request.messages[0]["content"] in self.broken or request.sample_index >= len(self.answers):
            return Completion("", self.model, error="HTTP 500")
        return Completion(self.answers[request.sample_index], self.model)


def step(rewrite, *verifiers, verdict="not_equal"):
    return Transition("Name birds.", "add_constraints", rewrite, Review(verdict), "m", verifiers=verifiers)


def chain(*steps):
    return Trajectory(Seed("a", "Name birds."), steps)


def paid(function, *chains):
    return next(iter(call_rewards([function], chains).values())).tolist()


CHECKED = chain(step("Name birds. Use no commas.", NO_COMMA))
MOSTLY = Student("Owl", "Owl and wren", "Owl; wren", "Owl, wren")


def test_a_step_is_paid_the_share_of_answers_that_keep_all_its_verifiers():
    both = step("Name birds. Use no commas and fewer than 3 words.", NO_COMMA, SHORT)
    rewards = paid(verified_reward(MOSTLY), chain(CHECKED.transitions[0], both))
    assert rewards == [[0.75, 0.5]]


def test_what_is_learnable_is_passed_sometimes():
    assert paid(learnability_reward(MOSTLY), CHECKED) == [[0.1875]]
    assert paid(learnability_reward(Student("Owl", "Wren", "Jay", "Tit")), CHECKED) == [[0.0]]


def test_a_gap_is_where_the_strong_model_passes_and_the_student_fails():
    strong = Student("Owl", "Wren", "Jay", "Owl, jay", model="strong")
    weak = Student("a, b", "a, b", "a, b", "Owl")
    assert paid(gap_reward(weak, strong), CHECKED) == [[0.5625]]
    assert paid(gap_reward(strong, strong), CHECKED) == [[0.1875]]


def test_nothing_is_said_of_a_step_without_verifiers_or_that_failed_review():
    rejected = step("Name birds. Use no commas.", NO_COMMA, verdict="equal")
    (rewards,) = paid(verified_reward(MOSTLY), chain(step("Name ten birds."), rejected, CHECKED.transitions[0]))
    assert [math.isnan(reward) for reward in rewards] == [True, True, False]


def test_each_rewrite_is_asked_about_once_with_sample_indices_of_its_own():
    student = Student("a", "b", "c")
    assert paid(verified_reward(student, samples=3), CHECKED, CHECKED) == [[1.0], [1.0]]
    assert [request.sample_index for request in student.requests] == [0, 1, 2]
    assert {(request.role, request.sampling.temperature) for request in student.requests} == {("student", 0.7)}


def test_answers_are_bought_once_and_booked_on_the_student(tmp_path):
    student = Student("a", "b,", "c", "d")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorded = ledger.record(student)
        paid_twice = [paid(verified_reward(recorded), CHECKED), paid(learnability_reward(recorded), CHECKED)]
    assert paid_twice == [[[0.75]], [[0.1875]]]
    assert len(student.requests) == 4
    assert report(tmp_path)["roles"]["student"]["calls"] == 4


def test_calls_that_failed_count_neither_as_passed_nor_as_failed():
    lost = step("Name fish. Use no commas.", NO_COMMA)
    student = Student("Owl", "Owl, wren", "Jay", broken=["Name fish. Use no commas."])
    more = chain(*(step(f"Name {n} birds.", NO_COMMA) for n in range(9)))
    (first, _) = paid(verified_reward(student), chain(CHECKED.transitions[0], lost), more)
    assert first[0] == pytest.approx(2 / 3)
    assert math.isnan(first[1])


def test_a_student_that_fails_most_calls_stops_the_training():
    student = Student("Owl", model="m")
    with pytest.raises(CallsRefused, match=r"3 of 4 calls to the student 'm' failed, 3 of them with: HTTP 500"):
        paid(verified_reward(student), CHECKED)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: verified_reward(MOSTLY, 4, Sampling(0.0, 1.0)), "At temperature 0 all 4 answers would be the same"),
        (lambda: learnability_reward(MOSTLY, 1), "samples"),
        (lambda: gap_reward(MOSTLY, MOSTLY, 0), "samples"),
    ],
)
def test_samples_that_say_nothing_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_one_greedy_answer_is_enough_for_a_share():
    assert paid(verified_reward(Student("Owl"), 1, Sampling(0.0, 1.0)), CHECKED) == [[1.0]]


# -- on the command line


def _train(out, *options):
    command = ["train-policy", "--chooser", "linucb", "--instructor", "rulebook", "--reviewer", "rulebook"]
    sizes = ["--max_steps", "32", "--operations_per_episode", "2", "--max_seeds", "30"]
    return main([*command, *sizes, "--use_cpu", "true", "--output_dir", str(out), *options])


def test_a_bandit_is_paid_by_rewards_named_on_the_command_line(tmp_path):
    funcs = ["validity_reward", "verified_reward", "gap_reward"]
    options = ["--student", "rulebook", "--strong_student", "rulebook:7", "--constraints", "rules"]
    weights = ["--reward_weights", "1", "2", "0.5", "--student_samples", "2"]
    assert _train(tmp_path, "--reward_funcs", *funcs, *options, *weights) == 0
    arguments = read_run(tmp_path)["arguments"]
    assert (arguments["reward_funcs"], arguments["student"]) == (funcs, "rulebook")
    student = report(tmp_path)["roles"]["student"]
    assert student["calls"] > 0
    assert student["errors"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward_funcs", "verified_rewards"], "No reward function 'verified_rewards'"),
        (["--reward_funcs", "verified_reward"], "name it with --student"),
        (["--reward_funcs", "influence_reward", "--student", "rulebook"], "name it with --anchors"),
        (["--reward_funcs", "ifd_reward", "--student", "rulebook"], "name the student as transformers:PATH_OR_ID"),
        (["--reward_funcs", "gap_reward", "--student", "rulebook"], "name it with --strong_student"),
        (["--reward_funcs", "verified_reward", "--student", "rulebook"], "give --constraints rules"),
        (["--reward_funcs", "verified_reward", "--student", "rulebok"], "write 'rulebook'"),
    ],
)
def test_a_reward_that_lacks_what_it_needs_is_refused_before_training(tmp_path, capsys, options, message):
    assert _train(tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_a_real_student_is_asked_several_times_and_checked():
    student = make_generator(smollm2() | {"batch_size": 8})
    sampling = Sampling(0.9, max_tokens=16, seed=3)
    steps = [step("Name three birds. Use no commas.", NO_COMMA), step("Say hello in two words.", SHORT)]
    (first,) = paid(verified_reward(student, 4, sampling), chain(*steps))
    (again,) = paid(verified_reward(student, 4, sampling), chain(*steps))
    assert first == again
    assert all(reward in (0.0, 0.25, 0.5, 0.75, 1.0) for reward in first)
