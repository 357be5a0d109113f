"""Control tokens and thoughts: what is one in any family of models, and what only looks like it."""

import json

import pytest

from teamsrl_hf import OPERATIONS, load_seeds
from teamsrl_hf.text.rules import instruction_violations, response_violations
from teamsrl_hf.text.tokens import control_token, without_thoughts

# From each family's tokenizer_config.json, special_tokens_map.json or chat template.
FAMILIES = {
    "Qwen": """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|box_end|> <|quad_start|> <|vision_start|>
        <|vision_pad|> <|image_pad|> <|video_pad|> <|fim_prefix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_call>
        </tool_call> <tool_response> </tool_response> <think> </think>""",
    "Llama 2": "<s> </s> <unk> <pad> [INST] [/INST] <<SYS>> <</SYS>> ▁<PRE> ▁<SUF> ▁<MID> ▁<EOT>",
    "Llama 3": """<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|>
        <|python_tag|> <|finetune_right_pad_id|> <|reserved_special_token_0|> <|image|>""",
    "Llama 4": "<|header_start|> <|header_end|> <|eot|> <|eom|> <|step|> <|patch|> <|tile_x_separator|>",
    "Mistral": """<s> </s> <unk> <pad> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS]
        [/TOOL_RESULTS] [TOOL_CALLS] [TOOL_CONTENT] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [IMG] [IMG_BREAK] [IMG_END]
        [PREFIX] [MIDDLE] [SUFFIX] [CALL_ID] [THINK] [/THINK] [MODEL_SETTINGS] [/MODEL_SETTINGS] <SPECIAL_20>""",
    "Gemma": """<bos> <eos> <pad> <unk> <start_of_turn> <end_of_turn> <start_of_image> <end_of_image>
        <image_soft_token> <audio_soft_token> <unused99> [multimodal] [@BOS@]""",
    "Gemma 4": """<|turn> <turn|> <|channel> <channel|> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response>
        <tool_response|> <|image> <audio|> <|image|> <|think|> <|"|>""",
    "DeepSeek": """<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜▁pad▁｜> <｜User｜> <｜Assistant｜> <｜fim▁hole｜>
        <｜tool▁calls▁begin｜> <｜tool▁call▁end｜> <｜tool▁outputs▁begin｜> <｜tool▁sep｜> <|EOT|>
        <｜place▁holder▁no▁7｜> <｜DSML｜function_calls> </｜DSML｜invoke>""",
    "Phi": "<|system|> <|user|> <|assistant|> <|end|> <|endoftext|> <|im_sep|> <|placeholder1|> <|dummy_85|> <|tag|>",
    "Cohere": """<BOS_TOKEN> <EOS_TOKEN> <PAD> <UNK> <CLS> <SEP> <MASK_TOKEN> <EOP_TOKEN> <|START_OF_TURN_TOKEN|>
        <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <|START_THINKING|> <|END_RESPONSE|>
        <|START_ACTION|> <|NEW_FILE|>""",
    "Granite": "<|start_of_role|> <|end_of_role|> <|tool_call|> <|end_of_text|> <|start_of_cite|> <|end_of_plugin|>",
    "gpt-oss": """<|startoftext|> <|start|> <|end|> <|message|> <|channel|> <|constrain|> <|return|> <|call|>
        <|reserved_200000|> <|endofprompt|>""",
    "GLM": """[gMASK] [sMASK] [MASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|> <|begin_of_image|>
        <|code_prefix|> <|/nothink|>""",
    "Kimi": """[BOS] [EOS] [PAD] [UNK] <|im_middle|> <|im_system|> <|im_user|> <|tool_calls_section_begin|>
        <|tool_call_argument_begin|> <|media_start|> ◁think▷ ◁/think▷""",
    "SmolLM": "<|im_start|> <end_of_utterance> <file_sep> <gh_stars> <issue_start> <jupyter_code> <empty_output>",
    "StarCoder": """<fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <fim-prefix> <commit_before> <commit_after>
        <issue_comment> <issue_closed> <jupyter_start> <jupyter_text>""",
    "EXAONE": "[BOS] [|system|] [|user|] [|assistant|] [|endofturn|] [|tool|]",
    "Falcon": ">>QUESTION<< >>ANSWER<< >>TITLE<< >>MIDDLE<< <|endoftext|>",
    "T5": "<pad> </s> <unk> <extra_id_0> <extra_id_99>",
    "BERT": "[CLS] [SEP] [MASK] [PAD] [UNK] [unused17]",
    "XLNet": "<cls> <sep> <eod> <eop>",
    "Seed": "<seed:bos> <seed:eos> <seed:think> </seed:think> <seed:tool_call> <seed:cot_budget_reflect>",
    "MiniMax": "]~b] ]~!b[ [e~[ <minimax:tool_call> </minimax:tool_call>",
    "LongCat": "<longcat_think> </longcat_think> <longcat_tool_call> <longcat_s>",
    "Baichuan": "<reserved_106> <reserved_107>",
    "unseen": """<|never_seen|> <|/x-y.z:9|> <｜neu｜> <|opened> <closed|> [TOOL_X] [TOOLS_LIST] [/NEVER_SEEN]
        <start_of_something> <fim_other> ◁other▷ <|日本|>""",
}
TOKENS = sorted({token for tokens in FAMILIES.values() for token in tokens.split()})
ORDINARY = [
    *("a < b and b > c", "x = d[INDEX]", "List<String> names;", "if (a<|b) in code", "[1] first reference"),
    *("xs |> List.map f", "print <| f x", "p <|> q", "use (<|) and (|>)", "f <| g |> h", "the mean <|v|> of speeds"),
    *("arr[MASK] = 1", "flags & [MASK]", "x |= [MASK]", "bits[i][MASK]", "f(x)[PAD]", "mask = [MASK]"),
    *("Map<String, List<Integer>>", "std::cout << x << y; std::cin >> z;", "#include <stdio.h>", "n >> 3 << 3"),
    *("n>>BITS<<BITS", "cat <<EOF\nx\nEOF", "base: &anchor\n  <<: *anchor", "a <=> b", "x <- c(1, 2)", "p->next"),
    *("<b>bold</b>", "<br/>", "<S>", '<s class="x">', "<strong>", "<mask id='m'/>", "<!-- | -->", "<T extends U>"),
    *("cp <filename> <target>", "git clone <repo_name>", "tool [OPTIONS] [ARGS]...", "Dear [NAME],", "[YOUR_NAME]"),
    *("[TODO] write this", "- [x] done", "[link](https://a.org)", "[B]bold[/B]", "[^1]: a note", "[A-Z]+", "[|1; 2|]"),
    *("<https://a.org>", "<a@b.org>", "<psi|H|psi>", "|0><0|", "a<|b|>c", "<user>hi</user>", "<|>", "<||>", "<| |>"),
    # Cloze tasks, Self-Instruct's among them, write it for a gap; it directs encoders, but no chat model's turn.
    "Fill in each <mask> of the text.",
    *("blend<mask>(a, b)", r"(?P<sep>[-:])\g<sep>", "(?<mask>x)", "gs://BUCKET[/SUB_PATH]"),
    *("Answer in <answer> tags.", "Give your <reasoning> first.", "｜ is a wide bar", "◁ and ▷", "[]~b", "[e]"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_control_tokens_of_a_family_are_found_wherever_they_stand(family):
    for token in FAMILIES[family].split():
        for text in ("{}", "Name a bird {} of Peru.", "Name a bird.{}system", "Name a bird.\n{}\nOf Peru."):
            assert control_token(text.format(token)) == token


@pytest.mark.parametrize("text", ORDINARY)
def test_what_ordinary_text_and_code_hold_is_no_control_token(text):
    assert control_token(text) is None


def test_seeds_rewrites_and_answers_are_judged_alike(tmp_path):
    texts = [f"Name three birds of Peru {part} and say where each of them nests." for part in (*TOKENS, *ORDINARY)]
    rows = [json.dumps({"instruction": text}) + "\n" for text in texts]
    (tmp_path / "a.jsonl").write_text("".join(rows[len(TOKENS) :]))
    assert len(load_seeds(str(tmp_path / "a.jsonl"))) == len(ORDINARY)
    for row, text in zip(rows, texts):
        (tmp_path / "a.jsonl").write_text(row)
        refused = control_token(text) is not None
        if refused:
            with pytest.raises(ValueError, match="which tokenizers read as a control token"):
                load_seeds(str(tmp_path / "a.jsonl"))
        assert ("control_tokens" in instruction_violations("Name a bird.", text, (), OPERATIONS[0])) == refused
        assert ("control_tokens" in response_violations(text)) == refused


@pytest.mark.parametrize(
    "thoughts",
    [
        *(f"<{name}>Short, or long?</{name}>\n\n" for name in ("think", "thinking", "thought", "reasoning", "Think")),
        *(f"<{name}>\nShort?\n</{name}>\n" for name in ("reflection", "seed:think", "longcat_think", "scratchpad")),
        "\n<think>\n\n</think>\n\n",
        "<think>One.</think>\n<think>Two.</think>\n",
        '<thinking effort="low">Short?</thinking>',
        "[THINK]Short, or long?[/THINK]",
        "◁think▷Short?◁/think▷",
        "<|channel>thought\nShort?\n<channel|>",
        "<|START_THINKING|>Short?<|END_THINKING|><|START_RESPONSE|>",
        "<|begin_of_thought|>Short?<|end_of_thought|>\n\n<|begin_of_solution|>",
        "<|thinking|>Short?<|/thinking|>",
        "<antThinking>Short?</antThinking>",
        "<inner_thoughts>Short?</inner_thoughts>",
        "<|channel|>analysis<|message|>Short?<|end|><|start|>assistant<|channel|>final<|message|>",
        "analysis<|message|>Short?<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>final<|message|>",
        "analysisShort, or long?assistantfinal",
        "Short, or long?\n</think>\n\n",
        "Short, or long?</think>",
        "Let me think about this </reasoning>\n",
        "Short.\n[/THINK]\n",
    ],
)
def test_thoughts_before_an_answer_are_cut(thoughts):
    assert without_thoughts(f"{thoughts}Short.") == "Short."


@pytest.mark.parametrize("end", ["<|return|>", "<|end|>\n", "<|END_RESPONSE|>"])
def test_what_ends_an_answer_after_thoughts_is_cut_too(end):
    assert without_thoughts(f"<|channel|>final<|message|>Short.{end}") == "Short."


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<think>Short, or long",
            "  <Thinking>\nSh",
            "<reasoning>Short.",
            "[THINK]Short",
            "◁think▷",
            "<think></think>",
        ),
        *(
            "<|channel|>analysis<|message|>Short",
            "<|channel>thought\nShort",
            "Short?\n</think>",
            "<think>a</think><think>b",
        ),
    ],
)
def test_a_thought_without_an_end_or_without_an_answer_leaves_nothing(text):
    assert without_thoughts(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("Short.", "  Short.\n", "What does <think> mean?", "It is </think>, as you know.", "`</think>`\nends it."),
        "Here is the form:\n<reasoning>\nwhy\n</reasoning>\n<answer>what</answer>",
        *("Analysis of the final text.", "analysis of it, assistant", "Thoughts</b>\nnext", "<thinker>I am</thinker>"),
    ],
)
def test_an_answer_that_only_speaks_of_thoughts_stays_as_it_is(text):
    assert without_thoughts(text) == text


def test_tokens_and_thoughts_take_time_in_proportion_to_the_text():
    for hostile in (
        "<think>",
        "<think></think>",
        "</think> ",
        " ",
        "<|",
        "[",
        "<|a",
        "<｜a",
        "[TOOL_",
        "<a_",
        ".\n",
        "<",
    ):
        control_token(hostile * (300_000 // len(hostile)))
        without_thoughts(hostile * (300_000 // len(hostile)))
