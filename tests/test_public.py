"""What rows and cards name is named without this machine: no path of it, no host it asks."""

from types import SimpleNamespace

import pytest
from test_cards import FILES, _result, _statistics

from teamsrl_hf import OPERATIONS, EvolverConfig, Rejection
from teamsrl_hf.public import is_local, public_config, public_model, public_name, public_text
from teamsrl_hf.publish.cards import dataset_card
from teamsrl_hf.publish.dataset_writer import default_row, trajectory_row

SPECS = {
    "rulebook": "rulebook",
    "rulebook:7": "rulebook:7",
    "gpt-4o-mini": "gpt-4o-mini",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "accounts/fireworks/models/llama-v3": "accounts/fireworks/models/llama-v3",
    "endpoint:tiny@http://10.1.2.3:8000/v1": "endpoint:tiny",
    "endpoint:tiny@http://localhost:8000/v1": "endpoint:tiny",
    "endpoint:tiny@https://gpu7.cluster.acme.com/v1?key=abc": "endpoint:tiny",
    "endpoint:tiny@https://ada:secret@host.internal/v1": "endpoint:tiny",
    "endpoint:tiny@http://[fd00::7]:8000/v1": "endpoint:tiny",
    "endpoint:/srv/models/llama@http://gpu7/v1": "endpoint:llama",
    "/srv/models/llama/": "llama",
    "~/models/llama": "llama",
    "../models/llama": "llama",
    r"D:\models\llama": "llama",
    r"\\nas\models\llama": "llama",
    "transformers:/home/ada/models/llama": "transformers:llama",
    "transformers:org/llama": "transformers:org/llama",
    '{"endpoint": "tiny@http://10.1.2.3/v1", "api_key_env": "ACME_KEY", "concurrency": 64}': "endpoint:tiny",
    '{"transformers": "/srv/llama", "dtype": "float16", "device": "cuda:3"}': "transformers:llama, dtype: float16",
}


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_is_named_without_host_path_and_password(spec):
    assert public_model(spec) == SPECS[spec]
    assert public_model(public_model(spec)) == SPECS[spec]


def test_a_folder_that_exists_is_named_by_its_last_part_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = ["outputs/model", "./outputs/model/", "outputs/model/.", str(tmp_path / "outputs" / "model")]
    assert [public_name(name) for name in names] == ["model"] * 4
    monkeypatch.chdir(tmp_path / "outputs" / "model")
    assert public_name(".") == "model"
    assert public_name("outputs/model") == "outputs/model"
    assert public_name("/") == "folder"


def test_a_pattern_is_no_path():
    assert not any(is_local(text) for text in (".*_proj", r"\d+", "all-linear", "", "a/b/c"))


def test_a_message_is_published_without_addresses_and_paths():
    said = {
        "HTTP 502: upstream http://10.0.0.7:8000/v1 is down": "HTTP 502: upstream [address] is down",
        "Cannot connect to host gpu7:8000 ssl:default [Connect call failed ('10.0.0.7', 8000)]": (
            "Cannot connect to host [address] ssl:default [Connect call failed ('[address]', 8000)]"
        ),
        "connect to [fd00::7]:80 failed": "connect to [address] failed",
        "no such file: '/home/ada/.cache/llama'": "no such file: '[path]'",
        "HTTP 429: 3/4 of the quota and/or credit is used up": "HTTP 429: 3/4 of the quota and/or credit is used up",
    }
    assert {text: public_text(text) for text in said} == said


def test_a_configuration_is_published_without_paths_and_else_as_it_is(tmp_path):
    kept = {"content": "/", "pattern": "/no/such/place", "_name_or_path": "org/m", "tokens": ["</s>", None, 1.5]}
    config = {**kept, "base_model_name_or_path": "../base", "other": [str(tmp_path)], "in": {"name_or_path": "~/m"}}
    public = {**kept, "base_model_name_or_path": "base", "other": [tmp_path.name], "in": {"name_or_path": "m"}}
    assert public_config(config) == public


def test_rows_name_models_and_errors_without_this_machine():
    from dataclasses import replace

    made = _result(rewriter="/home/ada/models/llama").candidate
    review = replace(made.transition.review, reviewer="transformers:/home/ada/judge")
    transition = replace(made.transition, review=review, error="Cannot connect to host gpu7:8000")
    result = Rejection(replace(made, transition=transition, responder="/mnt/llama"), "call_failed")
    row = trajectory_row(result)
    assert {name: row[name] for name in ("rewriter", "reviewer", "responder", "error")} == {
        "rewriter": "llama",
        "reviewer": "transformers:judge",
        "responder": "llama",
        "error": "Cannot connect to host [address]",
    }
    assert default_row(result)["responder"] == "llama"


def test_a_dataset_card_names_models_without_hosts():
    told = SimpleNamespace(
        license="mit",
        language="en",
        chooser="uniform",
        expert={"endpoint": "big@https://ada:hunter2@gpu7.internal/v1", "api_key_env": "ACME", "concurrency": 9},
        reviewer="endpoint:small@http://10.0.0.7/v1",
        instructor="transformers:/home/ada/llama",
    )
    card = dataset_card(_statistics([_result()]), FILES, OPERATIONS, told, EvolverConfig())
    assert "- expert: `endpoint:big`\n- reviewer: `endpoint:small`\n- instructor: `transformers:llama`\n" in card
    assert not [word for word in ("gpu7", "10.0.0.7", "/home", "ACME", "hunter2") if word in card]


def test_a_recipe_on_a_card_holds_no_path_and_keeps_its_patterns():
    from dataclasses import dataclass, field

    from teamsrl_hf.publish.cards import recipe_text

    @dataclass
    class Arguments:
        logging_dir: str = "logs"
        targets: list = field(default_factory=list)

    text = recipe_text(Arguments("/home/ada/logs", [".*_proj", "/home/ada/x"]))
    assert text == "logging_dir: logs\ntargets:\n- .*_proj\n- x"
