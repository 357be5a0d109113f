"""What the gate knows of English: verbs that open a request, words that say nothing, stems; other languages pass."""

import re
from functools import lru_cache

from ..words import normalise


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that open requests to an assistant. Others count too where an object follows, see `requests`.
VERBS = _listed(
    """
    accept act adapt add adjust advise agree allow alphabetize analyse analyze annotate answer append apply
    argue arrange ask assess assign assist assume attach balance be begin brainstorm break brief bring build
    calculate capitalize carry cast categorise categorize change check choose cite clarify classify clean close
    code collect combine come comment compare complete compose compress compute conclude condense conduct
    configure consider construct continue contrast convert convince cook copy correct count cover craft create
    criticise criticize critique debate debug decide decode deduce define delete deliver demonstrate depict
    derive describe design detail detect determine develop devise diagnose differentiate discuss display
    distinguish distribute divide do document draft draw edit elaborate eliminate encode encourage end enhance
    enumerate estimate evaluate examine execute expand explain explore express extend extract factor fill filter
    find finish fit fix follow forecast format formulate gather generate get give go group guess guide help
    highlight hypothesize identify illustrate imagine implement improve include increase indicate infer insert
    insist inspect integrate interpret introduce invent investigate invite join judge justify keep label lay
    leave let limit link list locate look make map mark match measure mention merge mind mix model modify
    motivate move name narrate negotiate note number offer open optimize order organise organize outline paint
    paraphrase phrase pick place plan play point portray pose practise predict prepare present pretend
    prioritise prioritize produce program proofread propose prove provide publish pull put query quiz quote rank
    rate react read rearrange recall recite recommend reconstruct record recount reduce refactor refer refine
    reflect refuse refute reject relate remove rename render reorder repair repeat rephrase replace reply report
    represent research resist resolve respond restate restructure retell retrieve return reuse reverse review
    revise reword rewrite role-play roll round rule run satisfy save say scan schedule score select send
    separate set share shorten show simplify simulate sing sketch solve sort specify speculate spell split spot
    start state stay stop structure study substitute suggest sum summarise summarize support suppose swap
    tabulate take talk target teach tell test think touch trace track trade train transcribe transform translate
    trim try turn update use vary verify visualise visualize vote walk warn weigh welcome work wrap write
    """
)
_QUESTION_WORDS = r"who|whom|whose|what|what's|whats|which|when|where|where's|why|how|how's|who's"
_AUXILIARIES = (
    r"is|are|am|was|were|do|does|did|can|could|should|would|will|shall|may|might|must|has|have|had|isn't|aren't"
    r"|wasn't|weren't|don't|doesn't|didn't|can't|couldn't|shouldn't|wouldn't|won't|hasn't|haven't"
)
QUESTION_START = re.compile(rf"(?:{_QUESTION_WORDS}|{_AUXILIARIES})\b", re.I)
FINITE = _listed(
    """
    is are was were has have had can could will would should may might must does did do isn't aren't wasn't it's
    refers means includes involves provides allows helps becomes seems consists
    """
)
# No noun or verb of a request, whatever it is about.
STOP_WORDS = _listed(
    """
    a an the and or but nor if then than so of to in on at by for with without from as into onto over under
    about between among through during before after above below up down out off again is are was were be been
    being am it its it's this that that's these those there here i i'm i've you you're he she we they me him her
    us them my your his our their mine yours who whom whose which what what's when where why how whether not no
    yes do does did doing done have has had having will would can could shall should may might must let let's
    all any each every both either neither one ones some such own same other another more most much many few
    less least too very just only also even still yet ever never always often while because since until though
    although however therefore rather quite per via s t re ve ll d m don't doesn't didn't isn't aren't can't
    cannot won't
    """
)
# What a request asks of every answer, or names the answer by; none of it is about a subject. No form, audience, length
# or number is here: these ask for something.
GENERIC = _listed(
    """
    answer answers response reply result output text task instruction question request statement explanation
    description explain describe write give provide make create generate show tell state present produce include
    contain consist mention cover address discuss use using used need needed want ask asked say said get take
    find help please also clear clearly concise concisely simple simply easy easily detailed detail details
    specific specifically thorough thoroughly special
    unique nice great fun complete completely comprehensive good well better best correct
    correctly accurate accurately relevant appropriate proper properly useful helpful meaningful effective
    effectively understandable understand informative interesting engaging precise precisely way ways method
    methods follow following kind type sort thing things something someone people person part parts require
    requires required information content topic subject point idea ideas various different certain given
    important possible real actually really main several
    """
)
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse",
    "wrote": "write", "written": "write", "made": "make", "gave": "give", "given": "give", "took": "take",
    "taken": "take", "went": "go", "gone": "go", "found": "find", "thought": "think", "bought": "buy",
    "left": "leave", "kept": "keep", "told": "tell", "said": "say", "knew": "know", "known": "know", "chose": "choose",
    "chosen": "choose", "built": "build", "sold": "sell", "paid": "pay", "ran": "run", "came": "come", "saw": "see",
    # Whoever asks for one asks for the other.
    "difference": "compare",
    "differences": "compare", "differ": "compare", "differs": "compare", "contrast": "compare",
    "distinguish": "compare", "comparison": "compare",
}  # fmt: skip
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", "e"), ("s", ""), ("ly", ""))


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A word without its commonest endings, so that forms of one word count as one.

    >>> [stem(word) for word in ("muscles", "used", "using", "studies", "glass", "slowly", "planned")]
    ['muscl', 'us', 'us', 'study', 'glass', 'slow', 'plan']
    """
    word = _IRREGULAR.get(word, word.removesuffix("'s"))
    for ending, instead in _ENDINGS:
        if (
            word.endswith(ending)
            and len(word) - len(ending) >= 2 + (ending == "s")
            and not word.endswith(("ss", "us"))
        ):
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


_FORM_STEMS = frozenset(
    map(
        stem,
        _listed(
            """
            zero one two three four five six seven eight nine ten hundred first second third list word table row column
            step choice sentence line paragraph page number bullet item json data format refer name title exactly least
            no than length short long limit order plan
            """
        ),
    )
)
_EMPTY_STEMS = frozenset(map(stem, STOP_WORDS | GENERIC))


@lru_cache(maxsize=10_000)
def content(text: str) -> frozenset[str]:
    """Stems of the words of a text that are about its subject, or are numbers or symbols."""
    return frozenset(map(_subject_stem, normalise(text).split())) - _NONE


_NONE = frozenset({""})


@lru_cache(maxsize=50_000)
def _subject_stem(word: str) -> str:
    """The stem of a word; empty where it is about no subject."""
    found = stem(word)
    return "" if word in STOP_WORDS or word in GENERIC or found in _EMPTY_STEMS else found


@lru_cache(maxsize=10_000)
def is_about_subject(run: str) -> bool:
    """Whether a few words hold two about a subject: neither numbers nor names of forms, such as "in three steps"."""
    return len(content(run) - _FORM_STEMS) > 1


@lru_cache(maxsize=10_000)
def is_english(text: str) -> bool:
    """Whether a text is surely English: its letters are ASCII and every eighth word or more is one of its commonest.

    >>> is_english("Name the bird in the tree."), is_english("Nenne den Vogel im Baum."), is_english("说出鸟的名字")
    (True, False, False)
    """
    found = normalise(text).split()
    if not found or not (text.isascii() or _has_ascii_letters(text)):
        return False
    return 8 * sum(map(_COMMON.__contains__, found)) >= len(found)


def _has_ascii_letters(text: str) -> bool:
    letters = list(filter(str.isalpha, text))
    return sum(map(str.isascii, letters)) >= 0.97 * len(letters)


_COMMON = _listed(
    """
    the of to and a an in is are for with on that this it you your what which how why when where who do does did
    can could should would i my as by from be or not if at than their its each explain describe write list give
    name
    """
)
