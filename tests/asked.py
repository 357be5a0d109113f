"""What a request asks for: from its task, as scripted models read it, or from its prompt, as a served model must."""

import re
import zlib

from teamsrl_hf.models.base import Task
from teamsrl_hf.text.plans import pack_key

# Rules in place of the models that a command needs.
EVOLVE_RULES = ("--expert", "rulebook", "--reviewer", "rulebook")
WHOLE = ("--prompts", "large")  # A served rulebook writes whole rewrites, whatever it is asked for.
TRAIN_RULES = ("--instructor", "rulebook", "--reviewer", "rulebook")
_OWN = r"(?P<fence>[0-9a-f]{12})\]\n"
_TEXT = r"\n\[instruction " + _OWN + r"(?P<text>.*)\n\[end (?P=fence)\]\Z"
_REWRITE = re.compile(r"\AYou edit .*?\nOperation: (?P<name>\w+)\n.*?" + _TEXT, re.S)
_PLAN = re.compile(r"\AYou carry out plans .*?\n\n(?P<steps>(?:\d+\. \w+: [^\n]*\n)+)\n.*?" + _TEXT, re.S)
_PACK = re.compile(r"\AYou carry out plans .*?\n\[instruction 0 " + _OWN + r".*?\nThe items:\n\n", re.S)
_REVIEW = re.compile(
    r"\A\[first " + _OWN + r"(?P<first>.*?)\n\[end (?P=fence)\]\n\n"
    r"\[second (?P=fence)\]\n(?P<second>.*?)\n\[end (?P=fence)\]",
    re.S,
)


def rewrite_of(request):
    """First operation and text of a request for a rewrite, or None if it asks for something else."""
    task = request.task
    return (task.plans[0][0], task.texts[0]) if task and task.kind == "rewrite" else None


def changed(name, text):
    """A rewrite that the rules let pass: the instruction with an addition, or for `breadth` another instruction."""
    length = len(text)
    if name == "breadth":
        number = zlib.crc32(text.encode())
        count = 3 + len(text.split()) // 3
        new = ("".join(chr(97 + (number * (7 * k + 1) >> 4 * i) % 26) for i in range(6)) for k in range(count))
        return f"Describe the {' near the '.join(new)}."
    return f"{text} Add {name} {f'[{length}]' if name == 'complicate_input' else length}."


def pack_of(request):
    """The fence that the answer to a pack has to use, and plan and text of each item."""
    task = request.task
    assert task.kind == "pack"
    return pack_key(list(zip(task.texts, task.plans))), list(zip(task.plans, task.texts))


def review_of(request):
    """The text and its rewrite."""
    assert request.task.kind == "review"
    return request.task.texts


def read_task(content):
    """The task that a prompt describes; a text that is none of our prompts is an instruction to answer."""
    if found := _REWRITE.match(content):
        return Task("rewrite", (found["text"],), ((found["name"],),))
    if found := _REVIEW.match(content):
        return Task("review", (found["first"], found["second"]))
    if found := _PACK.match(content):
        key = found["fence"]
        block = rf"^\[item \d+ {key}\]\nPlan: ([^\n]*)\n(.*?)\n\[end \d+ {key}\]$"
        plans, texts = zip(*re.findall(block, content[found.end() :], re.S | re.M))
        return Task("pack", texts, tuple(tuple(plan.split(", ")) for plan in plans))
    if found := _PLAN.match(content):
        return Task("rewrite", (found["text"],), (tuple(re.findall(r"^\d+\. (\w+): ", found["steps"], re.M)),))
    return Task("answer", (content,))
