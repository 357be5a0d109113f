"""Answers that are made to keep a constraint: in go an answer and arguments, out comes one that keeps it."""

import json
import re

from teamsrl_hf.verifiers import KINDS

BASE = "The dough grows in the warm kitchen and we wait for it"
TRANSLATED = {
    "de": "Das ist ein Text über die Stadt und nicht über das Meer.",
    "fr": "Le pain est sur la table et il est pour nous dans la maison.",
    "es": "El pan está en la mesa y es para los que no tienen una casa.",
    "it": "Il pane è sulla tavola e non è per gli altri della casa.",
}


def fulfil(id, answer, arguments):
    """`answer`, changed so that it keeps the constraint."""
    return _WAYS[id](answer, **arguments)


def _amount(unit):
    """Add `unit` often enough; what may not be long is short already."""

    def way(answer, **arguments):
        relation = next(value for name, value in arguments.items() if name.endswith("relation"))
        number = next(value for value in arguments.values() if isinstance(value, int))
        return f"{answer} {' '.join([unit] * number)}" if relation == "at least" else answer

    return way


def _lines(answer, num_lines):
    kept = [line for line in answer.splitlines() if line.strip()]
    return "\n".join([*(kept + ["And so on"] * num_lines)[: num_lines - 1], kept[-1] if len(kept) > 1 else "So"])


def _paragraphs(divider):
    return lambda answer, num_paragraphs: divider.join([*["And so on"] * (num_paragraphs - 1), answer])


def _nth(answer, num_paragraphs, nth_paragraph, first_word):
    parts = [*["And so on"] * (num_paragraphs - 1), answer]
    parts[nth_paragraph - 1] = f"{first_word.title()} {parts[nth_paragraph - 1]}"
    return "\n\n".join(parts)


def _items(marker):
    def way(answer, relation="at least", **arguments):
        number = next(iter(arguments.values())) - (relation == "less than")
        return "\n".join([*(f"{marker.format(n=place + 1)}item" for place in range(number)), "", answer])

    return way


def _table(answer, num_columns):
    row, rule = "| m " * num_columns + "|", "|---" * num_columns + "|"
    return f"{row}\n{rule}\n{row}\n\n{answer}"


def _sections(answer, section_spliter, num_sections):
    heads = "".join(f"{section_spliter} {n}\nAnd so on\n" for n in range(1, num_sections))
    return f"{heads}{section_spliter} {num_sections}\n{answer}"


def _initials(answer, letter, frequency, relation):
    return f"{answer} " + " ".join([f"{letter}a"] * frequency)


def _title(answer):
    return f"<<The title>>\n{answer}"


def _words(answer, **arguments):
    return f"{' '.join(next(iter(arguments.values())))} {answer}"


def _alphabet(answer, num_items):
    return "\n".join([*(f"- {letter}m item" for letter in "abcdefgh"[:num_items]), "", answer])


_WAYS = {
    "length_constraints:number_words": _amount("so"),
    "length_constraints:number_sentences": _amount("It is so."),
    "length_constraints:number_characters": _amount("so"),
    "keywords:existence": _words,
    "keywords:frequency": lambda answer, keyword, frequency, relation: f"{' '.join([keyword] * frequency)} {answer}",
    "keywords:forbidden_words": lambda answer, forbidden_words: re.sub("|".join(forbidden_words), "so", answer),
    "keywords:order": _words,
    "keywords:letter_frequency": lambda answer, letter, let_frequency, let_relation: (
        f"{letter * let_frequency} {answer}" if let_relation == "at least" else answer
    ),
    "keywords:initial_letter": _initials,
    "startend:first_word": lambda answer, first_word: f"{first_word}\n{answer}",
    "startend:last_word": lambda answer, last_word: f"{answer} {last_word}",
    "startend:end_checker": lambda answer, end_phrase: f"{answer}. {end_phrase}",
    "startend:ends_with_question": lambda answer: f"{answer}. Is it so?",
    "startend:quotation": lambda answer: f'"{answer}"',
    "combination:repeat_prompt": lambda answer, prompt_to_repeat: f"{prompt_to_repeat}\n{answer}",
    "detectable_content:postscript": lambda answer, postscript_marker: f"{answer}\n{postscript_marker} It is so",
    "detectable_content:number_placeholders": lambda answer, num_placeholders: (
        f"{'[name] ' * num_placeholders}{answer}"
    ),
    "detectable_content:quoted_passages": lambda answer, num_quotes: '"so it is" ' * num_quotes + answer,
    "detectable_content:no_digits": lambda answer: re.sub(r"\d", "", answer),
    "change_case:english_capital": str.upper,
    "change_case:english_lowercase": str.lower,
    "change_case:capital_word_frequency": _amount("YES"),
    "punctuation:no_comma": lambda answer: answer.replace(",", ""),
    "punctuation:forbidden_mark": lambda answer, mark: answer.replace(mark, ""),
    "punctuation:mark_frequency": lambda answer, mark, frequency, relation: f"So{mark * frequency} {answer}",
    "language:response_language": lambda answer, language: TRANSLATED[language],
    "detectable_format:constrained_response": lambda answer: "My answer is maybe.",
    "answer:numeric": lambda answer, value: f"{answer} The answer is {value}.",
    "answer:agreement": lambda answer, answers, share: f"{answer} {answers[0]}",
    "count:word_count_range": lambda answer, min_words, max_words: " ".join(["so"] * min_words),
    "count:unique_word_count": lambda answer, N: (
        f"{answer} " + " ".join(f"so{n:b}".translate({48: "e", 49: "o"}) for n in range(N))
    ),
    "length_constraints:short_sentences": lambda answer, max_words: "It is so. We wait.",
    "sentence:keyword": lambda answer, word, N: "And so. " * (N - 1) + f"The {word} is here. It is so",
    "words:repeats": lambda answer, small_n: "Each word once",
    "count:conjunctions": lambda answer, small_n: f"and but or nor {answer}",
    "words:no_consecutive": lambda answer: "Each word once",
    "format:title_case": str.title,
    "format:no_whitespace": lambda answer: "So",
    "count:numbers": lambda answer, N: f"{' '.join(['3'] * N)} {answer}",
    "length_constraints:number_paragraphs": _paragraphs("\n***\n"),
    "length_constraints:blank_line_paragraphs": _paragraphs("\n\n"),
    "length_constraints:nth_paragraph_first_word": _nth,
    "length_constraints:number_lines": _lines,
    "length_constraints:number_items": _items("- "),
    "detectable_format:number_bullet_lists": _items("* "),
    "detectable_format:numbered_list": _items("{n}. "),
    "detectable_format:number_highlighted_sections": lambda answer, num_highlights: (
        f"{answer} " + " ".join(["*so*", "*it*", "**goes**", "*on*"][:num_highlights])
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:headings": lambda answer, num_headings: "# So\nso\n" * num_headings + answer,
    "detectable_format:markdown_table": _table,
    "detectable_format:json_format": lambda answer: json.dumps({"answer": answer}),
    "detectable_format:json_keys": lambda answer, keys: json.dumps(dict.fromkeys(keys, answer)),
    "detectable_format:title": _title,
    "detectable_format:code_fence": lambda answer, language: f"```{language}\nx = f(y)\n```\n{answer}",
    "detectable_format:one_line": lambda answer: " ".join(answer.split()),
    "detectable_format:no_lists": lambda answer: answer,
    "combination:two_responses": lambda answer: f"And so on\n******\n{answer}",
    "format:list": lambda answer, sep: f"{sep} one\n{sep} two\n{answer}",
    "detectable_format:alphabetical_items": _alphabet,
    "detectable_format:labelled_lines": lambda answer, labels: "\n".join([*(f"{one}: so" for one in labels), answer]),
    "detectable_format:tagged": lambda answer, tag: f"<{tag}>{answer}</{tag}>",
}
assert list(_WAYS) == list(KINDS)
