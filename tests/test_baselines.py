import json
import math

import numpy as np
import pytest
from asked import changed, rewrite_of

from teamsrl_hf import Completion, ScriptedGenerator, Seed
from teamsrl_hf.environment.bandits import LinUCBChooser, ThompsonChooser, observe, train_chooser, upper_bounds
from teamsrl_hf.environment.choosers import CHOOSERS, load_chooser, paper_chooser, save_chooser, uniform_chooser
from teamsrl_hf.environment.rollout import rollout, states_of, uniform
from teamsrl_hf.text.features import history_features
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.types import Review, State, Trajectory, Transition

THREE = OPERATIONS[:3]
DIFFERENT = ScriptedGenerator(lambda request: "Different")
SEEDS = [Seed(f"s{i}", f"Tell me about {('cats', 'dogs')[i % 2]} number {i}.") for i in range(200)]
TRAIN, TEST = SEEDS[:150], SEEDS[150:]
LUCK = [uniform("test", i) for i in range(300)]


def _appending(request):
    name, text = rewrite_of(request)
    return changed(name, text)


def _paying(best):
    """A reward function: 1 where the operation has the index `best(seed, state)`, else 0."""

    def pay(trajectories):
        return [
            [
                float(transition.operation == THREE[best(chain.seed, state)].name)
                for state, transition in zip(states_of(chain), chain.transitions)
            ]
            for chain in trajectories
        ]

    return pay


def _train(chooser, best, rounds=8, steps=3, seed=0):
    instructor = ScriptedGenerator(_appending)
    return train_chooser(
        chooser, TRAIN, THREE, instructor, DIFFERENT, rounds, [_paying(best)], episodes=32, steps=steps, seed=seed
    )


@pytest.mark.parametrize("chooser", [ThompsonChooser(THREE), LinUCBChooser(THREE)], ids=["thompson", "linucb"])
def test_a_bandit_learns_nothing_of_an_operation_whose_calls_fail(chooser):
    def failing(request):
        name, _ = rewrite_of(request)
        return Completion("", "m", error="HTTP 500") if name == THREE[1].name else _appending(request)

    untouched = {name: array[1].copy() for name, array in chooser.arrays.items()}
    means = train_chooser(chooser, TRAIN, THREE, ScriptedGenerator(failing), DIFFERENT, 2, episodes=32, steps=3)
    for name, array in chooser.arrays.items():
        assert np.array_equal(array[1], untouched[name])
        assert not np.array_equal(array[0], untouched[name])
    assert means[0] > 3  # Chains without a failure earn 1 and more a step.


def _held_out(chooser, best, steps=3, seeds=TEST):
    """Share of best operations that the trained chooser takes on seeds it has not seen."""
    chooser.explore = False
    chains = rollout(seeds, chooser, THREE, ScriptedGenerator(_appending), DIFFERENT, steps)
    return float(np.mean(_paying(best)(chains)))


def _by_last_operation(seed, state):
    return (1, 2, 0)[[o.name for o in THREE].index(state.operations[-1])] if state.operations else 0


def _by_step(seed, state):
    return (2, 0, 1)[state.step]


def _by_word(seed, state):
    return int("dogs" in state.text)


def _by_chance(seed, state):
    return int(uniform("class", seed.id) < 0.5)


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


@pytest.mark.parametrize("make", [ThompsonChooser, LinUCBChooser])
@pytest.mark.parametrize("best", [0, 1, 2])
def test_a_bandit_finds_the_one_operation_that_pays(make, best):
    chooser = make(THREE)
    rewards = _train(chooser, lambda seed, state: best)
    assert rewards[0] < 2 < 2.4 < rewards[-1]
    assert _held_out(chooser, lambda seed, state: best) == 1.0


@pytest.mark.parametrize("best", [_by_last_operation, _by_step])
def test_only_linucb_learns_what_depends_on_the_history(best):
    bandit, contextual = ThompsonChooser(THREE), LinUCBChooser(THREE)
    _train(bandit, best)
    _train(contextual, best)
    assert _held_out(contextual, best) == 1.0
    assert _held_out(bandit, best) == pytest.approx(1 / 3)


def _with_and_without_text(best):
    """Shares of best operations on 600 held-out seeds; the standard error of each is 0.02."""
    unseen = [Seed(f"u{i}", f"Tell me about {('cats', 'dogs')[i % 2]} number {1000 + i}.") for i in range(600)]
    choosers = LinUCBChooser(THREE, text_dim=32), LinUCBChooser(THREE)
    for chooser in choosers:
        _train(chooser, best)
    return [_held_out(chooser, best, steps=1, seeds=unseen) for chooser in choosers]


def test_linucb_learns_what_depends_on_a_word_only_if_it_reads_the_text():
    reading, blind = _with_and_without_text(_by_word)
    assert reading == 1.0
    assert blind == 0.5


def test_reading_gains_nothing_when_the_reward_has_nothing_to_do_with_the_text():
    reading, blind = _with_and_without_text(_by_chance)
    assert reading - blind < 0.1


def test_thompson_takes_an_operation_as_often_as_it_believes_it_is_the_best():
    chooser = ThompsonChooser(OPERATIONS[:2])
    chooser.arrays = {"count": np.array([99.0, 99.0]), "total": np.array([50.0, 60.0])}
    # Beliefs 0.5 ± 0.1 and 0.6 ± 0.1: the first is higher with the probability Φ(−0.1 / √0.02) = 0.24.
    actions = chooser([State("x")] * 4000, [uniform("belief", i) for i in range(4000)])
    assert actions.count(0) / 4000 == pytest.approx(0.24, abs=0.02)


def test_linucb_gives_the_bounds_one_gets_by_hand():
    inverse, moment = np.stack([np.eye(2), np.eye(2)]), np.zeros((2, 2))
    observe(inverse[0], np.array([1.0, 1.0]))  # A = [[2, 1], [1, 2]]
    moment[0] += 3.0 * np.array([1.0, 1.0])
    np.testing.assert_allclose(inverse[0], [[2 / 3, -1 / 3], [-1 / 3, 2 / 3]], rtol=1e-12)
    weights = np.stack([inverse[0] @ moment[0], inverse[1] @ moment[1]])
    np.testing.assert_allclose(weights, [[1.0, 1.0], [0.0, 0.0]], atol=1e-12)
    bounds = upper_bounds(weights, inverse, np.array([1.0, 0.0]), alpha=2.0)
    np.testing.assert_allclose(bounds, [1 + 2 * math.sqrt(2 / 3), 2.0], rtol=1e-12)


def test_thousands_of_single_updates_end_at_the_inverse_of_the_sum():
    rows = np.random.default_rng(0).normal(size=(5000, 12))
    inverse = np.eye(12)
    for row in rows:
        observe(inverse, row)
    np.testing.assert_allclose(inverse, np.linalg.inv(np.eye(12) + rows.T @ rows), rtol=0, atol=1e-12)


def test_linucb_is_ridge_regression_of_the_reward_on_the_features():
    chooser, pay = LinUCBChooser(THREE, text_dim=8), _paying(_by_word)
    chains = rollout(TEST, uniform_chooser(THREE), THREE, ScriptedGenerator(_appending), DIFFERENT, steps=2)
    rewards = pay(chains)
    chooser.update(chains, rewards)
    seen = [
        (chooser.features(state), reward)
        for chain, row in zip(chains, rewards)
        for state, transition, reward in zip(states_of(chain), chain.transitions, row)
        if transition.operation == "deepen"
    ]
    x, y = np.stack([features for features, _ in seen]), np.array([reward for _, reward in seen])
    wanted = np.linalg.solve(np.eye(x.shape[1]) + x.T @ x, x.T @ y)
    got = chooser.arrays["inverse"][2] @ chooser.arrays["moment"][2]
    np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_history_counts_what_was_tried_and_passed_and_marks_the_last_operation_and_the_step():
    index = {"a": 0, "b": 1}
    state = State("x", ("b", "b", "a"), (True, False, True), 3)
    tried, passed, last, step = [0.25, 0.5], [0.25, 0.25], [1, 0], [0, 0, 0, 1]
    assert history_features([state], index, 4)[0].tolist() == [*tried, *passed, *last, 1, 0, *step]
    assert history_features([State("x")], index, 4)[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert history_features([State("x", step=9)], index, 4)[0, -4:].tolist() == step


def test_a_batch_of_equal_states_is_spread_over_untried_operations():
    actions = LinUCBChooser(OPERATIONS)([State("x")] * 12, LUCK[:12])
    assert sorted(actions) == sorted([*range(6), *range(6)])


def test_trained_linucb_chooses_for_each_state_alike_whatever_stands_beside_it():
    chooser = LinUCBChooser(THREE, text_dim=32)
    _train(chooser, _by_word)
    chooser.explore = False
    states = [State(seed.text) for seed in TEST]
    assert chooser(states, LUCK[:50]) == [chooser([state], [0.9])[0] for state in states]


@pytest.mark.parametrize("make", [ThompsonChooser, LinUCBChooser])
def test_between_operations_of_equal_worth_the_random_number_decides(make):
    chooser = make(OPERATIONS, explore=False)
    chooser.arrays["total" if make is ThompsonChooser else "moment"][4] = 1e-15  # No more than rounding.
    assert chooser([State("x")] * 4, [0.0, 0.2, 0.5, 0.99]) == [0, 1, 3, 5]


@pytest.mark.parametrize("make", [ThompsonChooser, LinUCBChooser])
def test_the_same_training_gives_the_same_chooser_and_another_seed_another_one(make):
    choosers = [make(THREE) for _ in range(3)]
    rewards = [_train(chooser, _by_step, rounds=3, seed=seed) for chooser, seed in zip(choosers, (0, 0, 1))]
    assert rewards[0] == rewards[1] != rewards[2]
    first, second, other = [b"".join(c.arrays[name].tobytes() for name in c.arrays) for c in choosers]
    assert first == second != other


class Watched(ThompsonChooser):
    """Learns nothing; keeps each round's seeds and operations."""

    def update(self, trajectories, rewards):
        self.rounds = getattr(self, "rounds", [])
        taken = [transition.operation for chain in trajectories for transition in chain.transitions]
        self.rounds.append(([chain.seed.id for chain in trajectories], taken))


def _watch(seeds, **options):
    chooser = Watched(THREE)
    train_chooser(chooser, seeds, THREE, ScriptedGenerator(_appending), DIFFERENT, 2, episodes=6, steps=1, **options)
    return chooser.rounds


def test_a_small_set_of_seeds_fills_a_batch_of_a_large_one_every_round_takes_others():
    assert [sorted(batch) for batch, _ in _watch(SEEDS[:3])] == [["s0", "s0", "s1", "s1", "s2", "s2"]] * 2
    (first, _), (second, _) = _watch(SEEDS)
    assert len(set(first)) == len(set(second)) == 6
    assert set(first) != set(second)


def test_the_luck_of_a_round_depends_on_its_number_and_on_the_seed_of_training():
    (_, first), (_, second) = _watch(SEEDS[:1], seed=0)
    (_, other), _ = _watch(SEEDS[:1], seed=1)
    assert first != second
    assert first != other


def test_rewards_are_weighted_and_summed():
    def two(chains):
        return [[2.0] * len(chain.transitions) for chain in chains]

    def one(chains):
        return [[1.0] * len(chain.transitions) for chain in chains]

    def train(**options):
        chooser = ThompsonChooser(THREE)
        means = train_chooser(
            chooser, TRAIN, THREE, ScriptedGenerator(_appending), DIFFERENT, 1, [two, one], episodes=4, **options
        )
        return means, chooser.arrays["total"].sum()

    assert train(steps=2) == ([6.0], 24.0)
    assert train(steps=2, reward_weights=[1.0, -0.5]) == ([3.0], 12.0)
    with pytest.raises(ValueError, match="reward_weights has 1 numbers for 2 reward functions"):
        train(reward_weights=[1.0])


def test_a_reward_function_that_pays_chains_instead_of_steps_is_named():
    def per_chain(chains):
        return [[1.0] for _ in chains]

    with pytest.raises(ValueError, match="per_chain returned 1 numbers for a trajectory of 6 steps"):
        train_chooser(ThompsonChooser(THREE), SEEDS, THREE, ScriptedGenerator(_appending), DIFFERENT, 1, [per_chain])


def test_learning_from_no_seeds_is_refused():
    with pytest.raises(ValueError, match="no seeds to learn from"):
        train_chooser(ThompsonChooser(THREE), [], THREE, ScriptedGenerator(_appending), DIFFERENT, 1)


def _trained(name):
    if name in ("uniform", "paper"):
        return CHOOSERS[name](OPERATIONS)
    settings = {"alpha": 0.25, "text_dim": 16} if name == "linucb" else {"deviation": 0.5}
    chooser = CHOOSERS[name](OPERATIONS, **settings)
    chains = rollout(TEST, uniform_chooser(OPERATIONS), OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, 3)
    chooser.update(chains, [[0.3, 0.7, -0.2]] * len(chains))
    return chooser


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("name", ["uniform", "paper", "thompson", "linucb"])
def test_a_chooser_loaded_again_makes_the_same_choices(name, explore, tmp_path):
    chooser = _trained(name)
    if chooser.arrays:
        chooser.explore = explore
    save_chooser(chooser, tmp_path / "new" / "folder")
    again = load_chooser(tmp_path / "new" / "folder", OPERATIONS)
    states = [State(f"{seed.text} {u}", ("deepen",) * step, (True,) * step, step) for seed, u, step in _places()]
    assert again(states, LUCK[:200]) == chooser(states, LUCK[:200])
    assert (again.name, type(again)) == (name, type(chooser))


def _places():
    return [(seed, u, i % 3) for i, (seed, u) in enumerate(zip(SEEDS, LUCK))]


def test_what_was_learned_is_stored_by_the_names_of_the_operations(tmp_path):
    save_chooser(_trained("thompson"), tmp_path)
    assert json.loads((tmp_path / "chooser.json").read_text()) == {
        "chooser": "thompson",
        "operations": [
            *("breadth", "add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"),
        ],
        "settings": {"deviation": 0.5, "explore": True},
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chooser.json", "chooser.safetensors"]


@pytest.mark.parametrize("name", ["uniform", "paper", "thompson", "linucb"])
def test_a_chooser_of_other_operations_is_refused_and_both_lists_are_shown(name, tmp_path):
    save_chooser(_trained(name), tmp_path)
    with pytest.raises(ValueError, match=r"among \['breadth', .*\], but .* are \['deepen', 'breadth'\]; they must"):
        load_chooser(tmp_path, [OPERATIONS[2], OPERATIONS[0]])
    with pytest.raises(ValueError, match="they must be the same"):
        load_chooser(tmp_path, OPERATIONS[::-1])


def test_training_with_other_operations_than_the_choosers_is_refused():
    with pytest.raises(ValueError, match="they must be the same"):
        train_chooser(ThompsonChooser(OPERATIONS), SEEDS, THREE, ScriptedGenerator(_appending), DIFFERENT, 1)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chooser.json", None),
        ("chooser.json", "{"),
        ("chooser.json", "[]"),
        ("chooser.json", '{"chooser": "oracle", "operations": ["breadth"], "settings": {}}'),
        ("chooser.json", '{"chooser": "linucb", "operations": ["breadth"], "settings": {"beta": 1}}'),
        ("chooser.safetensors", None),
        ("chooser.safetensors", "torn"),
    ],
)
def test_a_folder_without_a_readable_chooser_is_named(file, content, tmp_path):
    save_chooser(ThompsonChooser(OPERATIONS[:1]), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match="holds no chooser that can be read") as caught:
        load_chooser(tmp_path, OPERATIONS[:1])
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_bandits_tell_what_they_expect_of_a_state():
    chains = [Trajectory(Seed("s", "x"), (Transition("x", "breadth", "x y", Review("not_equal"), "m"),))] * 30
    for kind in (ThompsonChooser, LinUCBChooser):
        chooser = kind(OPERATIONS)
        assert chooser.value([State("x")]) == [0.0]
        chooser.update(chains, [[2.0]] * 30)
        assert chooser.value([State("x")])[0] == pytest.approx(2.0, rel=0.1)
