"""Environment steps a CPU-second: our PPO trainer against stable-baselines3's PPO, same environment, same run.

    pip install -e ".[benchmark]" && python tests/benchmarks/bench_ppo.py [--steps 30720] [--repeats 5]

Both act in the rulebook's world on the built-in seeds, read form, hashed words and history through two layers of 64,
collect 384 operations a rollout from 64 chains, pass over it four times in minibatches of 96, and learn at one rate:
what a policy has learned decides how much the rulebook has to do. Both are paid for validity alone, since novelty is a
matter of the batch, which a Gymnasium environment does not know. stable-baselines3 acts through `DummyVecEnv`; its
second row is its own default of one environment. What the rulebook made of a chain once, both remember alike.
Trainings take turns, and ratios are those of neighbours: least, median, greatest. Figures are CPU seconds of this
process; nothing is remembered from one training to the next.
"""

import argparse
import functools
import gc
import os
import statistics
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import stable_baselines3
import torch
from transformers import PrinterCallback

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    Rulebook,
    State,
    load_seeds,
    seeds_to_dataset,
    validity_reward,
)
from teamsrl_hf.environment.rollout import carry_out, next_state
from teamsrl_hf.text.features import history_features, text_features
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.types import Trajectory

CHAINS, STEPS, PASSES, MINIBATCHES = 64, 6, 4, 4


class OperationEnv(gymnasium.Env):
    """One chain as a Gymnasium environment: the same step as ours, carried out at once."""

    def __init__(self, seeds, number=0):
        # Rulebooks with one seed are one and the same: what it made for another environment is remembered here, too.
        self.seeds, self.model, self.config = seeds, Rulebook(), OperationPolicyConfig()
        self.index = {operation.name: i for i, operation in enumerate(OPERATIONS)}
        self.luck = np.random.default_rng(number)
        size = self.config.text_width + self.config.history_size
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(OPERATIONS))

    def reset(self, *, seed=None, options=None):
        self.seed_in_hand = self.seeds[self.luck.integers(len(self.seeds))]
        self.state, self.texts = State(self.seed_in_hand.text), [self.seed_in_hand.text]
        return self._observe(), {}

    def step(self, action):
        transition = _at_once(carry_out(self.texts, OPERATIONS[action], self.model, self.model))
        self.state = next_state(self.state, transition)
        if transition.review.passed:
            self.texts.append(transition.rewrite)
        reward = validity_reward([Trajectory(self.seed_in_hand, (transition,))])[0][0]
        return self._observe(), reward, self.state.step == STEPS, False, {}

    def _observe(self):
        text = text_features([self.state.text], self.config.text_size)[0]
        return np.concatenate([text, history_features([self.state], self.index, STEPS)[0]])


def _at_once(coroutine):
    """The result of a coroutine that never waits, as the rulebook's never do."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the rulebook waited")


def ours(steps, seeds, by_phase=False):
    """CPU seconds of a whole training, or of its parts: to read the clock for these takes time itself."""
    args = InstructionGenPPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        max_steps=steps // (CHAINS * STEPS) * PASSES * MINIBATCHES,
        per_device_train_batch_size=CHAINS // MINIBATCHES,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=PASSES,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
    )
    trainer = InstructionGenPPOTrainer(
        OperationPolicy(OperationPolicyConfig()),
        args,
        Rulebook(),
        reward_funcs=validity_reward,
        train_dataset=seeds_to_dataset(seeds),
    )
    trainer.remove_callback(PrinterCallback)
    if not by_phase:
        return _cpu(trainer.train)
    phases = {"act and rewrite": "collect", "reward": "compute_rewards", "loss": "compute_loss"}
    spent = {phase: _timed(trainer, name) for phase, name in phases.items()}
    total = _cpu(trainer.train)
    parts = {phase: seconds[0] for phase, seconds in spent.items()}
    return {**parts, "backward, optimizer, trainer": total - sum(parts.values())}


def _timed(owner, name):
    """Wrap a method so that its CPU seconds are summed in the list returned."""
    method, spent = getattr(owner, name), [0.0]

    def wrapped(*args, **kwargs):
        started = time.process_time()
        try:
            return method(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - started

    setattr(owner, name, wrapped)
    return spent


def peer(steps, seeds, environments):
    """CPU seconds of stable-baselines3's training on as many environments."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    # What a policy has learned decides how much the rulebook has to do, so both learn alike.
    ours_by_default = InstructionGenPPOConfig(output_dir=tempfile.mkdtemp(), use_cpu=True)
    world = DummyVecEnv([lambda number=number: OperationEnv(seeds, number) for number in range(environments)])
    model = stable_baselines3.PPO(
        "MlpPolicy",
        world,
        n_steps=CHAINS * STEPS // environments,
        batch_size=CHAINS * STEPS // MINIBATCHES,
        n_epochs=PASSES,
        policy_kwargs={"net_arch": [64, 64]},
        learning_rate=lambda left: left * ours_by_default.learning_rate,
        gamma=ours_by_default.gamma,
        gae_lambda=ours_by_default.lam,
        ent_coef=ours_by_default.entropy_coef,
        device="cpu",
    )
    return _cpu(lambda: model.learn(steps))


def _cpu(work):
    """CPU seconds of `work`, which meets a world whose texts nobody has read before."""
    for module in [module for name, module in sys.modules.items() if name.startswith("teamsrl_hf.")]:
        for name, value in vars(module).items():
            if isinstance(value, functools._lru_cache_wrapper) and name != "_loop":
                value.cache_clear()
    started = time.process_time()
    work()
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80 * CHAINS * STEPS, help="operations of a training")
    parser.add_argument("--repeats", type=int, default=5, help="trainings of each; medians are printed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # As the recipe does; good for both.
    seeds = load_seeds()
    ours(CHAINS * STEPS, seeds), peer(CHAINS * STEPS, seeds, CHAINS)  # Warm: imports, caches, kernels.
    peers = {f"stable-baselines3, {count} environment{'s' * (count > 1)}": count for count in (CHAINS, 1)}
    rates, ratios = {name: [] for name in ("teamsrl-hf", *peers)}, {name: [] for name in peers}
    for _ in range(args.repeats):
        rates["teamsrl-hf"].append(args.steps / ours(args.steps, seeds))
        for name, count in peers.items():
            rates[name].append(args.steps / peer(args.steps, seeds, count))
            ratios[name].append(rates["teamsrl-hf"][-1] / rates[name][-1])
    print(f"{'':<38}{'steps per CPU-second':>22}{'ours / theirs, pair by pair':>31}")
    for name, measured in rates.items():
        print(f"{name:<38}{statistics.median(measured):>22,.0f}{_spread(ratios.get(name)):>31}")
    print("\nours by phase, share of CPU time")
    phases = ours(args.steps, seeds, by_phase=True)
    for phase, seconds in phases.items():
        print(f"  {phase:<36}{seconds / sum(phases.values()):>8.0%}")


def _spread(ratios):
    """Least, middle and greatest ratio."""
    return f"{min(ratios):.2f}  {statistics.median(ratios):.2f}  {max(ratios):.2f}" if ratios else ""


if __name__ == "__main__":
    main()
