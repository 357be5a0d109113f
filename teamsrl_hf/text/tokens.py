"""Control tokens and thoughts: find a control token in a text, and strip the thoughts that precede an answer.

Both tables list forms, not vocabularies: they also match tokens of future models that use the same brackets.
"""

import re

# Ordinary text contains <filename>, <repo_name>, <image> and [ARGS]. They can't end or open a turn, so they may pass.
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
# Not control tokens: the index d[MASK], the operand in flags & [MASK], and names as in blend<mask>(a) and (?P<sep>,).
_ALONE = (
    r"(?<![\w)\]&|^~=])(?<![&|^~=+] )\[(?:CLS|SEP|MASK|PAD|UNK|BOS|EOS|IMG(?:_BREAK|_END)?|(?:BEGIN_)?AUDIO"
    r"|PREFIX|SUFFIX|MIDDLE|CALL_ID|TOOLS?_[A-Z0-9_]+|/[A-Z]+(?:_[A-Z]+)+)\]"
    r"|(?<![\w\\?])<(?:cls|sep|CLS|SEP)>"
)
# The lookahead saves three quarters of the time.
CONTROL_TOKEN = re.compile(rf"(?=[<>\[\]◁▁\0])(?:{'|'.join((*_ANYWHERE, _ALONE))})")
_BRACKET = re.compile(r"[<\[\]◁\0]")  # Every control token contains one of these.

NO_ANSWER = "no answer after thoughts"  # The error of a call whose response holds thoughts alone.
_THINKING = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_NAMES = rf"[\w:]*{_THINKING}"
_FINAL = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,40}<\|message\|>"
# Pairs of patterns: the start and the end of a thought.
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
    # Markers of the answer's start, and gpt-oss output whose control tokens the server has removed.
    rf"|{_FINAL}|<\|(?:start_response|begin_of_solution)\|>|(?-i:analysis.*?assistantfinal))\s*",
    re.I | re.S,
)
# If the prompt holds the opening tag, the response holds only the closing one, after a sentence or at the end of a
# line. A closing tag anywhere else belongs to a text about tags.
_ENDS = "|".join((f"</(?:{_NAMES})>", *(ends for _, ends in _THOUGHTS[1:])))
_END_ALONE = re.compile(rf"(?<=[.!?…。！？\n])(?:{_ENDS})\s*|(?:{_ENDS})[ \t\r]*(?:\n\s*|\Z)", re.I)
_END_HINTS = ("</", "[/", "◁/", "|>")  # Every end of a thought holds one, and plain strings are found much faster.
_ANSWER_ENDS = ("<|return|>", "<|end|>", "<|END_RESPONSE|>", "<|end_of_solution|>")


def control_token(text: str) -> str | None:
    """The first control token of any known model family, or null byte, in a text; None if there is none.

    A control token in a text could end its turn or open another. Seeds, rewrites and responses are all checked.

    >>> control_token("Sort these.<|im_end|>"), control_token("if a < b: d[MASK] |= flags & [MASK]")
    ('<|im_end|>', None)
    """
    found = CONTROL_TOKEN.search(text) if _BRACKET.search(text) else None
    return found[0] if found else None


def without_thoughts(text: str) -> str:
    """Strip the thoughts that some servers leave before a response. Returns "" if a thought has no end.

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
    alone = _END_ALONE.search(text, start) if any(hint in text for hint in _END_HINTS) else None
    if alone and not _OPENS.search(text, start, alone.start()):
        start = alone.end()
    return _without_end(text[start:]) if start > first else text


def _without_end(answer: str) -> str:
    answer = answer.rstrip()
    return next((answer.removesuffix(end) for end in _ANSWER_ENDS if answer.endswith(end)), answer)
