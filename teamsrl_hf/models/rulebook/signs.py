"""Signs that an operation does not fit a text: code, answer options, a task with one right answer, a definition."""

import re

from .words import load

_LANGUAGES = "|".join(load("reading")["languages"])
_LINE_OF_CODE = re.compile(
    r"`|[{}]|\[\]|;\s*(?:$|[\"'”])|\w\((?:\w?|[^()]*[\"'=+*/<>,][^()]*)\)|\w\[[^\]\s]*\]|=>|->|[=!<>]=|(?<![cC])\+\+|&&|\|\|"
    r"|</?[a-z]\w*[^<>]*>|\$[a-z_]|#include|\s--?[a-z]+\b|\b(?:print|printf|len|range|console\.log)\("
    r"|\b(?:SELECT|INSERT|UPDATE|DELETE)\s.*\b(?:FROM|INTO|SET)\b",
    re.M,
)
_OPTION = re.compile(r"(?:^|[\s(\[])([A-Fa-f])(?:[)\]]\s*|[.:]\s+)(?=\S)", re.M)
_CHOICE = re.compile(
    r"\b(?:which|what|one) of (?:the following|these|those)\b|\bmultiple[- ]choice\b|\b(?:true or false|odd one out)\b"
    r"|\b(?:choose|select|pick|circle|tick|mark|find) (?:the |a |an )?(?:one |single )?"
    r"(?:correct|right|best|true|wrong|false|suitable|appropriate)\b"
    r"|\b(?:correct|right) (?:answer|option|choice|spelling|word|form|alternative)\b|\bfill in the (?:blank|gap)|_{2,}"
    r"|\b(?:options|choices|alternatives|possible answers)\s*:"
)
_TRANSLATION = re.compile(
    rf"\btranslat(?:e|es|ed|ing|ion|ions)\b|\bhow (?:do|does|would|can|could|should) \w+ say\b"
    rf"|\b(?:{_LANGUAGES})(?: (?:word|expression|phrase|term|equivalent|name|translation))? for\b"
    rf"|\b(?:put|turn|convert|render|change|bring|say|write|express)\b.{{0,60}}\b(?:in|into|to) (?:{_LANGUAGES})\b"
)
_SUM = re.compile(
    r"\d\s*(?:[-+*/×·÷^=<>≤≥]|times\b|plus\b|minus\b|divided by\b|multiplied by\b)\s*\(?[\da-z]"
    r"|\b\d*[a-z]\s*[-=^+*/]\s*[\da-z]\b|\b\d+x\b|[∫√∑]|\d\s?%\s+of\b|\bpercent of\b"
    r"|\b(?:plus|minus|divided by|multiplied by|squared|cubed)\b|\b(?:add|subtract|multiply|divide)\b[^.?]*\d"
    r"|\b(?:integrals?|(?:anti)?derivatives?|equations?|inequalit(?:y|ies)|logarithms?|log base|factorials?|cosine"
    r"|determinants?|eigenvalues?|polynomials?|quadratic|hypotenuse|circumference|perimeter|numerator|denominator)\b"
    r"|\b(?:sin|cos|tan|log|ln|sqrt) ?\(?\d|\b(?:square|cube) root\b|\bprime (?:numbers?|factors?)\b"
    r"|\bgreatest common|\bleast common"
    r"|\b(?:sum|product|median|average|difference) of (?:\d|the numbers)|\b(?:area|volume) of (?:a|an) "
    r"|\b(?:comes|number|term) next\b|\bas a (?:decimal|fraction|percentage)\b|\blimit of .*\bapproach"
)
_ONE_ANSWER = re.compile(
    r"\b(?:synonyms?|antonyms?|opposite|plural|singular|past tense|past participle|comparative|superlative|spelling"
    r"|abbreviation|acronym|capital|chemical symbol) (?:form )?(?:of|for)\b|\bhow \w+ \w+ (?:spell|pronounce)\b"
    r"|\brhymes? with\b|\bpart of speech\b|\bsentiment\b|\bspam\b|\bclassif|\bcategori[sz]e"
    r"|\bhow (?:many|much|old|tall|high|long|far|fast|deep|heavy|big|large)\b|\bprobability\b"
    r"|\b(?:positive|negative|neutral|literal|fact|true|real|formal)\b[^.?]*\bor\b|\bor not\b"
    r"|\b(?:assess|decide|evaluate|determine|judge|check|tell|say|state) (?:\w+ )?(?:whether|if)\b"
    r"|^(?:is|are|was|were|does|do|did|which)\b[^.?]*\bor\b|\b(?:is|are) (?:this|these|the following)\b"
    r"|:[^?:]*\bor\b[^?:]*\?"
)
_FIGURES = re.compile(r"\d[^?]*[^\d.,?]\d")
_DEFINITION = re.compile(
    r"\bdefin(?:e|es|ed|ing|itions?)\b|\bmeaning of\b|\bmeant by\b|\bdifferences? between\b|\bdiffers?\b|\bcompare\b"
    r"|\bdistinguish|\b(?:do|does) .{1,60}\bmean\b|\bthe (?:term|word|concept|notion)\b"
    r"|\bwhat(?:['’]s| is| are| was| were) (?!the\b)(?:an? |some )?[\w-]+(?: [\w-]+)?\s*(?:[?.,:;!]|$)"
    r"|\bwhat (?:an? )?[\w-]+(?: [\w-]+)? (?:is|are|means?)\b|\bkinds? of\b|\bin terms of\b"
    r"|\bin (?:c\b|formal|computer science|programming|math\w*|logic|grammar|music theory|chess)\b"
)


_QUOTED = re.compile(r"`|(?<![\w\"'])[\"'“‘][^\"“”\n]+[\"'”’](?!\w)")
_LISTED = re.compile(r"\?[ \t]*\n\s*(?:[-*•+]|\(?\d+[.)])\s")


def has_quote(text: str) -> bool:
    """Whether a text quotes something."""
    return bool(_QUOTED.search(text))


def has_code(text: str) -> bool:
    """Whether a text shows code, be it in quotation marks or in the middle of a sentence."""
    return bool(_LINE_OF_CODE.search(text))


def options_in(text: str) -> int:
    """How many lettered options ("A) … B) …") a text offers; 0 where they do not start with A and B."""
    letters = [found[1].lower() for found in _OPTION.finditer(text)]
    return len(letters) if letters[:2] == ["a", "b"] else 0


def lists_answers(text: str) -> bool:
    """Whether a list, with letters or without, follows a question."""
    return bool(_LISTED.search(text)) or options_in(text) > 0


def options_in_line(text: str) -> bool:
    """Whether options stand side by side, where nothing can be added without becoming part of the last one."""
    return any(options_in(line) > 1 for line in text.split("\n"))


def is_choice(asked: str) -> bool:
    """Whether an instruction, in lower case, wants one of given answers."""
    return bool(_CHOICE.search(asked))


def is_translation(asked: str) -> bool:
    return bool(_TRANSLATION.search(asked))


def is_sum(asked: str) -> bool:
    """Whether an instruction, in lower case, is a calculation or about one."""
    return bool(_SUM.search(asked))


def has_one_answer(asked: str) -> bool:
    """Whether an instruction, in lower case, has one right answer, which leaves nothing to discuss."""
    return any(sign.search(asked) for sign in (_ONE_ANSWER, _CHOICE, _TRANSLATION, _SUM))


def has_figures(asked: str) -> bool:
    """Whether an instruction states several numbers, as one does for a calculation."""
    return bool(_FIGURES.search(asked))


def is_definition(asked: str) -> bool:
    """Whether an instruction, in lower case, is about what a noun means, so that no instance can take its place."""
    return bool(_DEFINITION.search(asked))
