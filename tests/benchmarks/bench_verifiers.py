"""Our verifiers against the checkers of IFEval and IFBench, on 500 answers for each kind that they have too.

    pip install --no-deps if-verifiable && pip install nltk langdetect immutabledict emoji syllapy
    python -c "import nltk; nltk.download('punkt'); nltk.download('punkt_tab')"
    python tests/benchmarks/bench_verifiers.py

Answers are texts of many forms, half of them made to keep the constraint, or one like it. An answer that passes here
must pass there ("laxer" is 0), so that those who have their checkers accept our rows; "stricter" are answers that pass
there alone, for reasons that `teamsrl_hf/verifiers/checks.py` and `formats.py` tell.
"""

import re
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))
from fulfil import BASE, TRANSLATED, fulfil
from test_verifiers import INSTRUCTIONS
from verifier_cases import CASES

from teamsrl_hf.verifiers import KINDS, passes, verifier

ANSWERS = 500
# The kinds of the first group are IFEval's, those of the second IFBench's.
CHECKERS = ("if_verifiable.ifeval.instructions_registry", "if_verifiable.ifbench.instructions_registry")
TEXTS = (
    BASE + ".",
    "Bread rises because yeast eats sugar, and gas fills the dough. Heat sets it! Is it done? Let it cool.",
    "# Bread\n\n- Mix flour, water and salt.\n- Wait for 2 hours.\n- Bake at 230 degrees.\n\nEnjoy *warm* **bread**.",
    "1. Mix.\n2. Wait.\n3. Bake.\n\nP.S. Use a well-known flour, e.g. No. 550.",
    "```python\ndef bake(dough):\n    return dough * 2  # a, b\n```\n\nThis function doubles the dough.",
    "THE OVEN IS HOT AND THE DOUGH IS READY FOR IT.",
    "the oven is hot and the dough is ready for it.",
    "The Oven Is Hot",
    '"So it goes," she said; "and so do we."',
    "<<On bread>>\nDr. Li, who lives in the U.S., bakes. He bakes 3.5 loaves (really) a day...",
    "Größe ist nicht alles, aber der Teig braucht viel Raum und Zeit.",
    "天空是蓝色的，海也是。",
    "Section 1\nFlour [name] [date]\nSection 2\nWater\nSection 3\nSalt",
    "Bread\n\nWater\n\nSalt\n\nTime",
    "One\n***\nTwo\n***\nThree",
    "One way.\n******\nAnother way.",
    '{"answer": "bread", "reason": ["flour", "water"]}',
    "My answer is yes.",
    "A man, a plan; but so it goes, or not, nor ever, yet again.",
    "",
    " ".join(f"word{n}" for n in range(90)),
    *TRANSLATED.values(),
)


def answers(id, arguments, count=ANSWERS):
    """Texts for a constraint: hand-written ones, plain ones, and ones made to keep it, another, or nearly it."""
    rng, others = Random(id), [other for other in KINDS if not other.startswith("answer:")]
    _, good, bad = CASES[id]
    found = [*good, *bad, *TEXTS]
    while len(found) < count:
        text = "\n\n".join([rng.choice(TEXTS) or BASE] * rng.choice((1, 1, 1, 2, 3, 25)))
        if rng.random() < 0.4:
            other = rng.choice(others)
            text = _kept(other, text, drawn(other, rng.random())) or text
        if rng.random() < 0.6:
            near = {name: _near(rng, value) for name, value in arguments.items()}
            text = _kept(id, text, near if rng.random() < 0.5 else arguments) or text
        if rng.random() < 0.2:  # A word that is wanted, or forbidden.
            values = [part for value in arguments.values() for part in (value if isinstance(value, list) else [value])]
            text = f"{text} {rng.choice(values or ['so'])} more"
        found.append(text)
    return found[:count]


def _near(rng, value):
    return max(1, value + rng.choice((-1, 1))) if isinstance(value, int) else value


def _kept(id, text, arguments):
    try:
        return fulfil(id, text, arguments)
    except (KeyError, IndexError):
        return None


def drawn(id, key):
    """Arguments from the kind's sampler."""
    found = (KINDS[id].sampler(Random(f"{id} {key}"), text) for text in INSTRUCTIONS)
    return next(arguments for arguments in found if arguments is not None)


def compare(id, checker_class, draws=5):
    """Counts of (ours, theirs) and the answers on which the two differ."""
    counts, differing = Counter(), []
    for draw in range(draws):
        arguments = drawn(id, draw)
        one = verifier(id, **arguments)
        for answer in answers(id, arguments)[draw::draws]:
            checker = checker_class(id)
            checker.build_description(**arguments)
            pair = passes(answer, one), bool(answer.strip() and _follows(checker, answer))
            counts[pair] += 1
            if pair[0] != pair[1]:
                differing.append((pair[0], arguments, answer))
    return counts, differing


def _follows(checker, answer):
    try:
        return checker.check_following(answer)
    except RecursionError:  # Theirs read JSON of any depth.
        return False


def checkers():
    """Their checkers by id. ImportError where a package they need is missing."""
    import_module("langdetect").DetectorFactory.seed = 0
    return {id: cls for module in CHECKERS for id, cls in import_module(module).INSTRUCTION_DICT.items()}


def main(show=3):
    theirs = checkers()
    print("| kind | answers | both pass | both fail | stricter | laxer | agree |\n|---|---|---|---|---|---|---|")
    examples = []
    for id in KINDS:
        if id not in theirs:
            continue
        try:
            counts, differing = compare(id, theirs[id])
        except LookupError as error:
            print(f"| `{id}` | needs data of NLTK: {re.findall(r'download..(.*?)..', str(error))[:1]} | | | | | |")
            continue
        total, same = sum(counts.values()), counts[True, True] + counts[False, False]
        row = total, counts[True, True], counts[False, False], counts[False, True], counts[True, False]
        print(f"| `{id}` | {' | '.join(map(str, row))} | {same / total:.1%} |")
        examples += [(id, *one) for one in sorted(differing, key=lambda one: not one[0])[:show]]
    for id, ours, arguments, answer in examples:
        print(f"\n{id} {arguments}: {'ours' if ours else 'theirs'} alone passes {answer[:200]!r}")


if __name__ == "__main__":
    main()
