"""Checks of length, words, beginnings and ends, case and punctuation: in go an answer and arguments, out comes a bool.

Where IFEval or IFBench has the kind, the arguments are theirs, and an answer that passes here passes there: a check is
as strict as theirs, or stricter where theirs takes an answer that a reader would not.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from .languages import language_of
from .reading import (
    Count,
    bullets,
    count_phrase,
    count_sentences,
    count_words,
    is_prose,
    lines,
    paragraphs,
    relation_holds,
    sentences,
    unbroken_code,
    without_code,
    words,
)

YES_NO = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
# What IFEval cuts a first word at.
_CUT_AT = re.compile(r"[.,?!'\"]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CONJUNCTIONS = frozenset(("and", "but", "nor", "or"))
_DOUBTFUL_CONJUNCTION = re.compile(r"[,;]\s+(for|so|yet)\b", re.I)
_GROUPING_SPACE = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")
_NO_MARKS = str.maketrans("", "", string.punctuation)


# -- length


def number_of_words(answer: str, *, num_words: int, relation: str) -> bool:
    return relation_holds(count_words(answer), relation, num_words)


def number_of_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    return relation_holds(count_sentences(answer), relation, num_sentences)


def number_of_characters(answer: str, *, num_characters: int, relation: str) -> bool:
    """Characters with spaces, those around the answer apart."""
    return relation_holds(Count(len(answer.strip()), len(answer)), relation, num_characters)


def number_of_lines(answer: str, *, num_lines: int) -> bool:
    """Lines that are not blank."""
    return len(lines(answer)) == num_lines


def blank_line_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Parts between blank lines, whether or not headings, lists, tables and parts of a block of code count."""
    parts = paragraphs(unbroken_code(answer))
    return Count(sum(map(is_prose, parts)), len(paragraphs(answer))).is_exactly(num_paragraphs)


def divided_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Paragraphs with lines of `***` between them."""
    parts = [part.strip() for part in re.split(r"^[ \t]*\*{3}[ \t]*$", answer.strip(), flags=re.M)]
    parts = parts[not parts[0] :]
    parts = parts[:-1] if parts and not parts[-1] else parts
    return "***" not in "".join(parts) and all(parts) and len(parts) == num_paragraphs


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = answer.strip().split("\n\n")
    if len(parts) != num_paragraphs or not all(map(is_prose, parts)) or nth_paragraph > len(parts):
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return _CUT_AT.split(word)[0].lower() == first_word.lower()


def word_range(answer: str, *, min_words: int, max_words: int) -> bool:
    count = count_words(answer)
    return min_words <= count.least and count.most <= max_words


def unique_words(answer: str, *, N: int) -> bool:
    return len({word.lower() for word in words(answer)}) >= N


def short_sentences(answer: str, *, max_words: int) -> bool:
    """No sentence, and no line without an end mark, is longer."""
    parts = [part for line in lines(answer) for part in sentences(line)]
    return bool(parts) and all(count_words(part).most <= max_words for part in parts)


# -- words


def holds_words(answer: str, *, keywords: Sequence[str]) -> bool:
    return all(count_phrase(answer, word).least for word in keywords)


def word_frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return relation_holds(count_phrase(answer, keyword), relation, frequency)


def avoids_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of them as a whole word."""
    return not any(count_phrase(answer, word).least for word in forbidden_words)


def words_in_order(answer: str, *, keywords: Sequence[str]) -> bool:
    """Each word's first place is behind that of the word before it."""
    places = [re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.I) for word in keywords]
    starts = [place.start() if place else -1 for place in places]
    return -1 not in starts and all(a < b for a, b in pairwise(starts))


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    number = answer.lower().count(letter.lower())
    return relation_holds(Count(number, number), let_relation, let_frequency)


def initial_letter(answer: str, *, letter: str, frequency: int, relation: str) -> bool:
    """Words that begin with a letter."""
    most = sum(word.startswith(letter.lower()) for word in re.findall(r"[^\W_]+", answer.lower()))
    least = sum(word.lower().startswith(letter.lower()) for word in words(answer))
    return relation_holds(Count(least, most), relation, frequency)


def keyword_in_sentence(answer: str, *, word: str, N: int) -> bool:
    """The word stands in the N-th sentence, from 1, whether or not a sentence may go on in the next line."""
    by_line = [part for line in lines(answer) for part in sentences(line)]
    return all(len(parts) >= N and count_phrase(parts[N - 1], word).least for parts in (sentences(answer), by_line))


def limited_repeats(answer: str, *, small_n: int) -> bool:
    """No word stands there more often, in any case."""
    found = Counter(answer.lower().translate(_NO_MARKS).split())
    return max(found.values(), default=0) <= small_n


def conjunctions(answer: str, *, small_n: int) -> bool:
    """Different ones; "for", "so" and "yet" are other words as well, and count behind a comma or semicolon only."""
    found = _CONJUNCTIONS & {word.lower() for word in words(answer)}
    return len(found.union(map(str.lower, _DOUBTFUL_CONJUNCTION.findall(answer)))) >= small_n


def no_shared_initials(answer: str) -> bool:
    """No two words in a row begin with the same letter."""
    found = answer.lower().translate(_NO_MARKS).split()
    return all(a[0] != b[0] for a, b in pairwise(found))


# -- beginnings and ends


def first_word(answer: str, *, first_word: str) -> bool:
    found = words(answer)
    return bool(found) and found[0].lower() == first_word.lower()


def last_word(answer: str, *, last_word: str) -> bool:
    found = words(answer)
    return bool(found) and found[-1].lower() == last_word.lower()


def ends_with_phrase(answer: str, *, end_phrase: str) -> bool:
    """An answer stands before the phrase and nothing behind it, and it is no part of a longer word."""
    phrase, text = end_phrase.strip().lower(), answer.strip().strip('"').lower()
    before = text[: len(text) - len(phrase)]
    return text.endswith(phrase) and bool(words(before)) and not before[-1:].isalnum()


def ends_with_question(answer: str) -> bool:
    text = answer.rstrip().rstrip("\"'”’)*_")
    return text.endswith("?") and bool(words(re.split(r"[\n.!?]", text.rstrip("?"))[-1]))


def in_quotation_marks(answer: str) -> bool:
    """From the first character to the last, with quotations inside, but not one quotation and then another."""
    text = answer.strip()
    inner = text[1:-1]
    whole = inner.count('"') % 2 == 0 and not re.match(r'[^"]*[\w.,!?]"', inner)
    return bool(inner) and text[0] == text[-1] == '"' and whole


def repeats_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the request, word for word, and goes on."""
    text, prompt = answer.strip().lower(), prompt_to_repeat.strip().lower()
    return text.startswith(prompt) and bool(words(text[len(prompt) :]))


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """Behind an answer, the last paragraph, or the last line, begins with the marker and goes on."""
    marker = re.escape(postscript_marker.strip())
    tails = [parts[-1] for parts in (paragraphs(answer), lines(answer)) if len(parts) > 1]
    return any(re.match(rf"{marker}[:\s]*[^\W_]", tail, re.I) for tail in tails)


def constrained_response(answer: str) -> bool:
    """The answer is one of the three sentences and nothing else."""
    return answer.strip() in YES_NO


# -- case and punctuation


def all_capitals(answer: str) -> bool:
    """English without a small letter."""
    return answer.isupper() and _may_be_english(answer.lower())


def all_lowercase(answer: str) -> bool:
    """English without a capital letter."""
    return answer.islower() and _may_be_english(answer)


def _may_be_english(text: str) -> bool:
    """English, or too short to tell and made of letters for the most part, as code and sums are not."""
    language = language_of(without_code(text))
    letters = sum(map(str.isalpha, without_code(text)))
    return language == "en" or (language == "" and 2 * letters > len("".join(text.split())))


def capital_words(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Words in capitals: of two letters and more at least; single ones, and parts of words, too at most."""
    least = sum(word.isupper() and sum(map(str.isalpha, word)) > 1 for word in words(answer))
    most = sum(word.isupper() for word in re.findall(r"\w+", answer))
    return relation_holds(Count(min(least, most), most), capital_relation, capital_frequency)


def title_case(answer: str) -> bool:
    """Every word begins with a capital letter and goes on in small ones."""
    found = re.findall(r"[^\W\d_]+", answer.replace("'", "").replace("’", ""))
    return bool(found) and all(word[0].isupper() and (len(word) == 1 or word[1:].islower()) for word in found)


def no_comma(answer: str) -> bool:
    """No comma, of any script."""
    return not any(mark in answer for mark in ",，、،")


def avoids_mark(answer: str, *, mark: str) -> bool:
    return mark not in unicodedata.normalize("NFKC", answer) and mark not in answer


def mark_frequency(answer: str, *, mark: str, frequency: int, relation: str) -> bool:
    number = answer.count(mark)
    return relation_holds(Count(number, number), relation, frequency)


def no_digits(answer: str) -> bool:
    return not any(map(str.isdigit, answer))


def count_of_numbers(answer: str, *, N: int) -> bool:
    """Numbers in digits; "1,000" and "3.5" are one each, whichever way their marks, or spaces in "1 000", are read."""
    removed = len(re.findall(r"\d+", answer.translate(_NO_MARKS)))
    return removed == N == len(_NUMBER.findall(answer)) == len(_NUMBER.findall(_GROUPING_SPACE.sub("", answer)))


def no_whitespace(answer: str) -> bool:
    return not any(map(str.isspace, answer))


# -- contents


def placeholders(answer: str, *, num_placeholders: int) -> bool:
    """Names in square brackets, such as [address]; links, boxes to tick and code do not count."""
    return len(re.findall(r"\[[^\[\]\n]*[^\W\d_]{2}[^\[\]\n]*\](?!\()", without_code(answer))) >= num_placeholders


def quoted_passages(answer: str, *, num_quotes: int) -> bool:
    """Passages of two words and more between double quotation marks."""
    found = re.findall(r"\"([^\"\n]+)\"|“([^”\n]+)”", without_code(answer))
    return sum(len(words(straight or curly)) > 1 for straight, curly in found) >= num_quotes


def response_language(answer: str, *, language: str) -> bool:
    """The whole answer is in the language, as far as its most common words or its script show."""
    return language_of(without_code(answer)) == language and all(
        language_of(part) in (language, "") for part in paragraphs(without_code(answer))
    )


def separated_list(answer: str, *, sep: str) -> bool:
    """At least two items, each on a line that begins with the separator; no bullets."""
    items = [line for line in lines(answer) if line.startswith(sep) and words(line[len(sep) :])]
    return len(items) >= 2 and (sep == "-" or not bullets(answer))
