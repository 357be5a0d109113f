"""What models read as more than text: in goes a text, out comes a control token in it, or the answer behind thoughts.

Both tables hold names and forms: a token that no family has yet is found if it is bracketed as those are.
"""

import re

# Text uses <filename>, <repo_name>, <image> and [ARGS] too; none of them can end a turn or open one, so they may pass.
_ANYWHERE = (
    r"<\|[^\s|<>]{2,60}\|>",  # ChatML, Llama 3 and 4, Qwen, Phi, Cohere, Granite, GLM, Kimi, gpt-oss, ...
    r"<\|[A-Za-z]\w+>|<[A-Za-z]\w+\|>|<\|\"\|>",  # Gemma 4
    r"</?｜[^｜<>]{1,60}｜\w*>",  # DeepSeek, Hunyuan
    r"</?s>|<(?:bos|eos|pad|unk|sop|eop|eod|BOS|EOS|PAD|UNK|(?:BOS|EOS|EOP|MASK)_TOKEN)>",
    r"</?(?:start|end|begin)_of_\w+>|</?im_(?:start|end|patch)>|<(?:image|audio)_soft_token>",  # Gemma 1 to 3, SmolVLM
    r"<(?:extra_id_|unused|reserved_|SPECIAL_|special|mask_|unk_)\d+>",  # T5, Gemma, Baichuan, Nemotron, Pegasus
    r"</?(?:seed|minimax):\w+>|</?longcat_\w+>|</?tool_(?:call|response|result|output)s?>|</?think(?:ing)?>",
    r"<fim[_-]\w+>|▁<(?:PRE|SUF|MID|EOT)>",  # StarCoder, SmolLM, CodeLlama
    r"<(?:file_sep|gh_stars|issue_(?:start|comment|closed)|jupyter_\w+|empty_output|commit_(?:before|after))>",
    r"<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|MODEL_SETTINGS|THINK)\]",
    r"\[ARGS\](?=\s*\{)",  # Mistral
    r"\[[gs]MASK\]|\[unused\d+\]|\[@BOS@\]|\[multimodal\]",  # GLM, BERT, Gemma
    r"\[\|(?:system|user|assistant|tool|endofturn)\|\]|◁/?\w+▷",  # EXAONE, Kimi
    r">>(?:TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|ANSWER|QUESTION|DOMAIN|PREFIX|SUFFIX|MIDDLE)<<",  # Falcon
    r"\]~!?b[\[\]]|\[e~\[",  # MiniMax
    r"\0",
)
# In d[MASK], flags & [MASK], blend<mask>(a) and (?P<sep>,) it is an index, an operand, or the name of something.
_ALONE = (
    r"(?<![\w)\]&|^~=])(?<![&|^~=+] )\[(?:CLS|SEP|MASK|PAD|UNK|BOS|EOS|IMG(?:_BREAK|_END)?|(?:BEGIN_)?AUDIO"
    r"|PREFIX|SUFFIX|MIDDLE|CALL_ID|TOOLS?_[A-Z0-9_]+|/[A-Z]+(?:_[A-Z]+)+)\]"
    r"|(?<![\w\\?])<(?:cls|sep|CLS|SEP)>"
)
# What is looked ahead for spares three quarters of the time.
CONTROL_TOKEN = re.compile(rf"(?=[<>\[\]◁▁\0])(?:{'|'.join((*_ANYWHERE, _ALONE))})")
_BRACKET = re.compile(r"[<\[\]◁\0]")  # One of these is in each of them.

NO_ANSWER = "no answer after thoughts"  # Why a call failed that gave nothing else.
_THINKING = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_NAMES = rf"[\w:]*{_THINKING}"
_FINAL = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,40}<\|message\|>"
# What opens a thought and what ends it.
_THOUGHTS = (
    (rf"<(?P<tag>{_NAMES})(?:\s[^<>]{{0,80}})?>", r"</(?P=tag)>"),
    (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<\|channel>thought", r"<channel\|>"),  # Gemma 4
    (rf"<\|(?:begin_of_|start_)?{_THINKING}\|>", rf"<\|(?:end_of_|end_|/){_THINKING}\|>"),  # Cohere, Sky-T1
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"(?:<\|channel\|>)?(?:analysis|commentary)[^<]{0,80}<\|message\|>", _FINAL),  # gpt-oss
)
_OPENS = re.compile("|".join(opens for opens, _ in _THOUGHTS), re.I)
_WHOLE = re.compile(
    rf"(?:{'|'.join(f'{opens}.*?{ends}' for opens, ends in _THOUGHTS)}"
    # An answer that says where it begins, and gpt-oss where a server has left out its control tokens.
    rf"|{_FINAL}|<\|(?:start_response|begin_of_solution)\|>|(?-i:analysis.*?assistantfinal))\s*",
    re.I | re.S,
)
# With the opening tag in the prompt the answer holds its end alone, after a sentence or as the last of a line;
# elsewhere somebody writes about tags.
_ENDS = "|".join((f"</(?:{_NAMES})>", *(ends for _, ends in _THOUGHTS[1:])))
_END_ALONE = re.compile(rf"(?<=[.!?…。！？\n])(?:{_ENDS})\s*|(?:{_ENDS})[ \t\r]*(?:\n\s*|\Z)", re.I)
_ANSWER_ENDS = ("<|return|>", "<|end|>", "<|END_RESPONSE|>", "<|end_of_solution|>")


def control_token(text: str) -> str | None:
    """The first string in a text that some family of models reads as a control token, or as a null byte; else None.

    A text that holds one could end its own turn or open another. Seeds, rewrites and answers are all judged by this.

    >>> control_token("Sort these.<|im_end|>"), control_token("if a < b: d[MASK] |= flags & [MASK]")
    ('<|im_end|>', None)
    """
    found = CONTROL_TOKEN.search(text) if _BRACKET.search(text) else None
    return found[0] if found else None


def without_thoughts(text: str) -> str:
    """An answer without the thinking before it, which some servers leave in; empty where a thought has no end.

    >>> without_thoughts("<think>Short, or long?</think>\\n\\nShort."), without_thoughts("<think>Short, or")
    ('Short.', '')
    >>> without_thoughts("Short, or long?\\n</think>\\nShort."), without_thoughts("What does <think> mean?")
    ('Short.', 'What does <think> mean?')
    """
    first = start = len(text) - len(text.lstrip())
    while whole := _WHOLE.match(text, start):
        start = whole.end()
    if _OPENS.match(text, start):
        return ""
    alone = _END_ALONE.search(text, start)
    if alone and not _OPENS.search(text, start, alone.start()):
        start = alone.end()
    return _without_end(text[start:]) if start > first else text


def _without_end(answer: str) -> str:
    answer = answer.rstrip()
    return next((answer.removesuffix(end) for end in _ANSWER_ENDS if answer.endswith(end)), answer)
