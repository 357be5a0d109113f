"""Evolution as an environment: operations as tools, the reward of their chain, and TRL's GRPOTrainer calling both."""

import asyncio
import inspect

import pytest

from teamsrl_hf import (
    CallsRefused,
    Completion,
    Operation,
    Rulebook,
    Seed,
    UserError,
    evolution_environment,
    evolution_rows,
)
from teamsrl_hf.environment.review import novelty_reward, validity_reward
from teamsrl_hf.environment.rewards import call_rewards
from teamsrl_hf.environment.rollout import carry_out, run_all
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.types import Trajectory

SEED = Seed("leaves", "Explain why leaves change colour in autumn.")
ADD = next(operation for operation in OPERATIONS if operation.name == "add_constraints")
RULES = Rulebook()


def _begun(operations=OPERATIONS, instructor=RULES, **options):
    environment = evolution_environment(instructor, RULES, operations, **options)()
    environment.reset(SEED.text, SEED.id, prompt="ignored")
    return environment


def _call(environment, name, *arguments):
    return asyncio.run(getattr(environment, name)(*arguments))


def test_an_operation_makes_the_step_of_a_rollout():
    environment = _begun()
    (step,) = run_all([carry_out((SEED.text,), ADD, RULES, RULES)])
    assert _call(environment, "add_constraints") == (
        f"Accepted. The instruction is now:\n{step.rewrite}\nCalls left: 2."
    )
    rewards = call_rewards((validity_reward, novelty_reward), [Trajectory(SEED, (step,))])
    assert environment.get_reward() == pytest.approx(sum(table[0, 0] for table in rewards.values()))
    assert environment.get_reward() > 1


def test_a_rewrite_of_the_models_own_passes_the_gate_or_is_named():
    environment = _begun()
    assert _call(environment, "rewrite", "Leaves turn red because their green fades.") == (
        f"Rejected (not_a_request). The instruction is still:\n{SEED.text}\nCalls left: 2."
    )
    better = "Explain why leaves change colour in autumn, and why some trees keep theirs green."
    assert _call(environment, "rewrite", better) == f"Accepted. The instruction is now:\n{better}\nCalls left: 1."


def test_after_the_last_call_nothing_is_carried_out():
    environment = _begun(steps=1)
    _call(environment, "add_constraints")
    paid = environment.get_reward()
    assert _call(environment, "rewrite", "Name a bird.").startswith(
        "No call is left. The instruction is:\nExplain why"
    )
    assert environment.get_reward() == paid


def test_two_tools_at_once_work_one_after_the_other():
    environment = _begun()

    async def both():
        return await asyncio.gather(environment.add_constraints(), environment.increase_reasoning())

    first, second = asyncio.run(both())
    assert first.endswith("Calls left: 2.")
    assert second.endswith("Calls left: 1.")
    text = first.split("\n")[1]
    assert second.split("\n")[1].startswith(text) or "Rejected" in second


def test_a_call_that_fails_is_no_step():
    async def broken(request):
        return Completion("", "model", error="HTTP 500: overloaded")

    environment = _begun(instructor=broken)
    assert _call(environment, "add_constraints") == "The call failed, and nothing has changed."
    with pytest.raises(CallsRefused, match="HTTP 500: overloaded"):  # Training on nothing would go on unseen.
        environment.get_reward()
    assert _call(environment, "rewrite", "Name three trees that keep their leaves.").endswith("Calls left: 2.")
    environment.reset(SEED.text)
    _call(environment, "add_constraints")
    _call(environment, "rewrite", "Name three trees that keep their leaves.")
    assert environment.get_reward() > 0


def test_a_new_chain_forgets_the_old_one():
    environment = _begun()
    _call(environment, "add_constraints")
    environment.reset("Name a bird.")
    assert environment.get_reward() == 0
    assert _call(environment, "rewrite", "Name a bird.") == (
        "Rejected (unchanged). The instruction is still:\nName a bird.\nCalls left: 2."
    )


def test_an_operation_may_not_hide_a_method_of_the_environment():
    with pytest.raises(UserError, match="can't be called 'reset', a method of every environment; rename it"):
        evolution_environment(RULES, RULES, [Operation("reset", "Start again.")])


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_chain_needs_at_least_one_call(steps):
    with pytest.raises(UserError, match="steps"):
        evolution_environment(RULES, RULES, steps=steps)


def test_tools_are_described_to_the_model_without_arguments_of_ours():
    from transformers.utils import get_json_schema

    environment = _begun(operations=(ADD,))
    tools = [
        get_json_schema(getattr(environment, name))["function"]
        for name, _ in inspect.getmembers(type(environment), inspect.isfunction)
        if not name.startswith("_") and name not in ("reset", "get_reward")
    ]
    assert [tool["name"] for tool in tools] == ["add_constraints", "rewrite"]
    assert tools[0]["description"] == ADD.sentence
    assert tools[0]["parameters"] == {"type": "object", "properties": {}}
    assert list(tools[1]["parameters"]["properties"]) == ["instruction"]


# A real trainer needs a model that calls tools. A tiny one learns a single conversation by heart.
CALL = {"type": "function", "function": {"name": "add_constraints", "arguments": {}}}


def _conversation():
    """The messages of a chain of one call, as the trainer will build them."""
    said = _call(_begun(operations=(ADD,), steps=2), "add_constraints")
    return [
        *evolution_rows([SEED], 2)[0]["prompt"],
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "add_constraints", "content": said},
        {"role": "assistant", "content": "Good."},
    ]


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    """A tiny model that calls `add_constraints` once, and then says "Good."."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import get_json_schema
    from trl.chat_template_utils import qwen2_5_chat_template

    from teamsrl_hf.sft.tiny import build_tiny_model, train_tokenizer

    messages, environment = _conversation(), _begun(operations=(ADD,))
    tools = [get_json_schema(environment.add_constraints), get_json_schema(environment.rewrite)]
    tokenizer = train_tokenizer([f"{qwen2_5_chat_template} {tools} {messages}"] * 4, vocab_size=4096)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", qwen2_5_chat_template
    folder = build_tiny_model([], tmp_path_factory.mktemp("caller"), tokenizer=tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder)
    turns = []
    for end in (2, 4):
        options = {"tools": tools, "tokenize": False}
        prompt = tokenizer.apply_chat_template(messages[: end - 1], add_generation_prompt=True, **options)
        answer = tokenizer.apply_chat_template(messages[:end], **options)[len(prompt) :].rstrip("\n")
        turns.append([tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)])
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(100):
        losses = [
            model(input_ids=torch.tensor([start + end]), labels=torch.tensor([[-100] * len(start) + end])).loss
            for start, end in turns
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        if max(losses) < 0.05:
            break
    assert max(losses) < 0.05
    model.save_pretrained(folder)
    return folder


def test_trl_lets_a_model_call_the_tools_and_pays_it_for_the_chain(caller, tmp_path):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    (step,) = run_all([carry_out((SEED.text,), ADD, RULES, RULES)])
    paid = _begun(operations=(ADD,), steps=2)
    _call(paid, "add_constraints")
    args = GRPOConfig(
        **{"output_dir": str(tmp_path / "out"), "use_cpu": True, "bf16": False, "report_to": "none"},
        **{"save_strategy": "no", "max_steps": 1, "logging_steps": 1, "max_completion_length": 300},
        **{"num_generations": 2, "per_device_train_batch_size": 2, "temperature": 0.05},
    )
    trainer = GRPOTrainer(
        str(caller),
        args=args,
        train_dataset=Dataset.from_list(evolution_rows([SEED], 2)),
        processing_class=AutoTokenizer.from_pretrained(caller),
        environment_factory=evolution_environment(RULES, RULES, (ADD,), steps=2),
    )
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged["tools/call_frequency"] == 1
    assert logged["tools/failure_frequency"] == 0
    assert logged["reward"] == pytest.approx(paid.get_reward())
    assert [environment._texts for environment in trainer.environments] == [[SEED.text, step.rewrite]] * 2
