import asyncio
import math

import pytest

from teamsrl_hf import Review, Seed, Trajectory, Transition, novelty_reward, validity_reward
from teamsrl_hf.environment.rewards import call_rewards, check_weights, weighted_sum


def _chain(name, steps):
    review = Review("not_equal")
    return Trajectory(
        Seed(name, name), tuple(Transition(name, "deepen", f"{name} {t}", review, "m") for t in range(steps))
    )


CHAINS = [_chain("a", 2), _chain("b", 2)]


def test_a_number_is_paid_at_the_end_and_a_list_step_by_step():
    def final(trajectories):
        return [1.0, 2]

    def stepwise(trajectories):
        return [[1.0, 2.0], [3.0, None]]

    rewards = call_rewards([final, stepwise], CHAINS)
    assert rewards["final"].tolist() == [[0.0, 1.0], [0.0, 2.0]]
    assert rewards["stepwise"].tolist()[0] == [1.0, 2.0]
    assert math.isnan(rewards["stepwise"][1, 1])


def test_none_is_left_out_of_the_sum():
    def silent(trajectories):
        return [None, 1.0]

    rewards = call_rewards([silent, validity_reward], CHAINS)
    assert weighted_sum(rewards, [10.0, 1.0]).tolist() == [[1.0, 1.0], [1.0, 11.0]]


def test_chains_of_different_length_are_padded():
    rewards = call_rewards([validity_reward], [_chain("a", 1), _chain("b", 3)])["validity_reward"]
    assert rewards[0].tolist()[0] == 1.0
    assert all(math.isnan(value) for value in rewards[0].tolist()[1:])
    assert weighted_sum({"x": rewards}, [1.0]).tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


def test_a_failed_call_is_paid_nothing_not_even_zero():
    failed = Transition("a", "deepen", "a", Review("unreadable", ("call_failed",)), "m", "HTTP 500")
    unseen = Transition("a", "deepen", "a 0", Review("unreadable", ("call_failed",), "j", "HTTP 500"), "m")
    chain = Trajectory(Seed("a", "a"), (failed, unseen, *CHAINS[0].transitions[:1]))
    assert validity_reward([chain]) == [[None, None, 1.0]]
    assert novelty_reward([chain])[0][:2] == [None, None]


def test_a_chain_that_lost_all_its_steps_is_paid_nothing():
    chains = [_chain("a", 0), _chain("b", 1)]
    rewards = call_rewards([lambda trajectories: [1.0, 2.0], validity_reward], chains)
    assert [weighted_sum({name: table}, [1.0]).tolist() for name, table in rewards.items()] == [
        [[0.0], [2.0]],
        [[0.0], [1.0]],
    ]


def test_async_functions_run_side_by_side():
    met = []

    def waiter(name):
        async def function(trajectories):
            met.append(name)
            while len(met) < 2:
                await asyncio.sleep(0.001)
            return [1.0] * len(trajectories)

        function.__name__ = name
        return function

    rewards = call_rewards([waiter("first"), waiter("second")], CHAINS)
    assert [table.tolist() for table in rewards.values()] == [[[0.0, 1.0], [0.0, 1.0]]] * 2


def test_async_functions_are_paid_each_its_own_whichever_ends_first():
    async def slow(trajectories):
        await asyncio.sleep(0.02)
        return [1.0, 2.0]

    async def fast(trajectories):
        return [3.0, 4.0]

    rewards = call_rewards([slow, fast], CHAINS)
    assert {name: table[:, 1].tolist() for name, table in rewards.items()} == {"slow": [1.0, 2.0], "fast": [3.0, 4.0]}


def test_a_function_is_given_the_columns_it_has_parameters_for():
    def by_domain(trajectories, domain):
        return [float(name == "law") for name in domain]

    def all_columns(trajectories, **columns):
        return [float(len(columns))] * 2

    rewards = call_rewards([by_domain, all_columns], CHAINS, domain=["law", "art"], source=["x", "y"])
    assert rewards["by_domain"].tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert rewards["all_columns"].tolist() == [[0.0, 2.0], [0.0, 2.0]]


def test_a_callable_object_is_named_by_its_class():
    class Politeness:
        def __call__(self, trajectories):
            return [0.5, 0.5]

    assert list(call_rewards([Politeness()], CHAINS)) == ["Politeness"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "wrong returned 1 rewards for 2 trajectories"),
        (None, "wrong returned NoneType for 2 trajectories"),
        ([1.0, [1.0, 2.0, 3.0]], "wrong returned 3 numbers for a trajectory of 2 steps"),
    ],
)
def test_a_broken_contract_is_told_with_both_numbers(returned, message):
    def wrong(trajectories):
        return returned

    with pytest.raises(ValueError, match=message):
        call_rewards([wrong], CHAINS)


def test_weights_must_match_functions_and_names_must_differ():
    assert check_weights(None, [validity_reward, novelty_reward]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="has 1 numbers for 2 reward functions"):
        check_weights([0.5], [validity_reward, novelty_reward])
    with pytest.raises(ValueError, match="Two reward functions are called 'validity_reward'"):
        check_weights(None, [validity_reward, validity_reward])
