"""The table of kinds that concern the text itself: its length, words, case, marks, beginning, end and result."""

from . import checks, numbers, samplers
from .kind import EVERYTHING, Aspect, Kind

_LENGTH, _WORDS, _LETTERS = {Aspect.LENGTH}, {Aspect.WORDS}, {Aspect.LETTERS, Aspect.WORDS}
# Lists have no sentences, and without capitals nobody can tell where one begins.
_SENTENCES = {Aspect.LENGTH, Aspect.LAYOUT, Aspect.CASE}
_START, _END = {Aspect.START}, {Aspect.END}
# Code has its own case and marks.
_CASE, _MARKS, _DIGITS = ({one, Aspect.CODE} for one in (Aspect.CASE, Aspect.MARKS, Aspect.DIGITS))
# Where English words and phrases would stand.
_LANGUAGE = EVERYTHING - {Aspect.TITLE, Aspect.CODE, Aspect.EMPHASIS, Aspect.MARKS, Aspect.DIGITS, Aspect.LAYOUT}
_QUOTATION = {Aspect.START, Aspect.END, Aspect.LAYOUT, Aspect.TITLE, Aspect.CODE, Aspect.MARKS}
_REPEAT = EVERYTHING - {Aspect.END, Aspect.EMPHASIS, Aspect.LAYOUT}


_AMOUNT = samplers.amount
TEXT_KINDS = (
    Kind("length_constraints:number_words", checks.number_of_words,
          _AMOUNT("num_words", (40, 60, 80, 100, 150), (60, 80, 100, 150, 200), fact=False), _LENGTH, r"\bwords?\b",
          """Answer in {relation} {num_words} words.
          Your answer must have {relation} {num_words} words.
          Write {relation} {num_words} words."""),
    Kind("length_constraints:number_sentences", checks.number_of_sentences,
          _AMOUNT("num_sentences", (3, 4, 5, 6), (4, 5, 6, 8), fact=False), _SENTENCES,
          r"\bsentences?\b",
          """Answer in {relation} {num_sentences} sentences.
          Your answer must consist of {relation} {num_sentences} sentences.
          Write {relation} {num_sentences} sentences."""),
    Kind("length_constraints:number_characters", checks.number_of_characters,
          _AMOUNT("num_characters", (200, 300, 400), (300, 400, 500, 800), fact=False), _LENGTH, r"\bcharacters?\b",
          """Answer in {relation} {num_characters} characters.
          Your answer must have {relation} {num_characters} characters, spaces included.
          Keep to {relation} {num_characters} characters."""),
    Kind("keywords:existence", checks.holds_words, samplers.keywords(2, 3), _WORDS, r"\bwords?\b",
          """Use the words {keywords}.
          Your answer must contain the words {keywords}.
          Include each of these words: {keywords}."""),
    Kind("keywords:frequency", checks.word_frequency, samplers.frequency, _WORDS, r"\btimes\b",
          """Use the word "{keyword}" {relation} {frequency} times.
          The word "{keyword}" must appear {relation} {frequency} times.
          Mention "{keyword}" {relation} {frequency} times."""),
    Kind("keywords:forbidden_words", checks.avoids_words, samplers.forbidden, _WORDS,
          r"\b(?:not|avoid|without|never)\b|n't\b",
          """Do not use the words {forbidden_words}.
          Avoid the words {forbidden_words}.
          Answer without the words {forbidden_words}."""),
    Kind("keywords:order", checks.words_in_order, samplers.keywords(2, 3), _WORDS, r"\border\b",
          """Use the words {keywords} in this order.
          Your answer must first mention each of {keywords} in the order given.
          Let these words appear in this order: {keywords}."""),
    Kind("keywords:letter_frequency", checks.letter_frequency, samplers.letters, _LETTERS, r"\bletter\b",
          """Let the letter "{letter}" appear {let_relation} {let_frequency} times.
          Your answer must contain the letter "{letter}" {let_relation} {let_frequency} times.
          Use the letter "{letter}" {let_relation} {let_frequency} times."""),
    Kind("keywords:initial_letter", checks.initial_letter, samplers.initials, _LETTERS, r"\b(?:begin|start)",
          """Use {relation} {frequency} words that begin with "{letter}".
          Your answer must contain {relation} {frequency} words that start with the letter "{letter}".
          Let {relation} {frequency} words begin with the letter "{letter}"."""),
    Kind("startend:first_word", checks.first_word, samplers.one_of("first_word", samplers.FIRST_WORDS), _START,
          r"\b(?:begin|start|first)",
          """Begin your answer with the word "{first_word}".
          The first word of your answer must be "{first_word}".
          Start with "{first_word}"."""),
    Kind("startend:last_word", checks.last_word, samplers.one_of("last_word", samplers.LAST_WORDS), _END,
          r"\b(?:end|last|final|finish)",
          """End your answer with the word "{last_word}".
          The last word of your answer must be "{last_word}".
          Let "{last_word}" be the final word."""),
    Kind("startend:end_checker", checks.ends_with_phrase, samplers.one_of("end_phrase", samplers.END_PHRASES), _END,
          r"\b(?:end|finish|last|close)",
          """Finish your answer with this exact phrase, and nothing after it: {end_phrase}
          Your answer must end with these exact words: {end_phrase}
          Close with exactly this sentence, and add nothing: {end_phrase}"""),
    Kind("startend:ends_with_question", checks.ends_with_question, samplers.nothing, {Aspect.END, *_MARKS},
          r"\bquestion\b",
          """End your answer with a question to the reader.
          The last sentence of your answer must be a question.
          Close with a question."""),
    Kind("startend:quotation", checks.in_quotation_marks, samplers.nothing, _QUOTATION, r"\bquotation marks\b",
          """Put your whole answer in double quotation marks.
          Wrap the entire answer in double quotation marks.
          Your whole answer must stand between double quotation marks."""),
    Kind("combination:repeat_prompt", checks.repeats_prompt, samplers.first_sentence, _REPEAT,
          r"\b(?:repeat|begin|start)",
          """Begin by repeating this, word for word, and then answer: "{prompt_to_repeat}"
          First repeat these words without any change: "{prompt_to_repeat}" Then give your answer.
          Start with these exact words, before your answer: "{prompt_to_repeat}\""""),
    Kind("detectable_content:postscript", checks.postscript, samplers.one_of("postscript_marker", samplers.MARKERS),
          _END, r"\b(?:postscript|end|add)",
          """At the end of your answer, add a postscript that starts with {postscript_marker}
          Close with a postscript on a line of its own, starting with {postscript_marker}
          Add a last paragraph that begins with {postscript_marker}"""),
    Kind("detectable_content:number_placeholders", checks.placeholders,
          samplers.only_for_texts(samplers.number("num_placeholders", 2, 4)), {Aspect.RESULT, Aspect.CODE},
          r"\bsquare brackets\b",
          """Use at least {num_placeholders} placeholders in square brackets, such as [address].
          Your answer must contain at least {num_placeholders} placeholders in square brackets, such as [name].
          Leave at least {num_placeholders} details open as placeholders in square brackets, such as [date]."""),
    Kind("detectable_content:quoted_passages", checks.quoted_passages,
          samplers.only_for_texts(samplers.number("num_quotes", 1, 3)), _MARKS, r"\bquot",
          """Include at least {num_quotes} passage(s) of two or more words in double quotation marks.
          Put at least {num_quotes} phrase(s) of several words in double quotation marks.
          Quote at least {num_quotes} time(s), each time several words in double quotation marks."""),
    Kind("detectable_content:no_digits", checks.no_digits, samplers.without_numbers, _DIGITS, r"\bdigits?\b",
          """Use no digits.
          Your answer must not contain any digits.
          Write without a single digit."""),
    Kind("change_case:english_capital", checks.all_capitals, samplers.nothing, {*_CASE, Aspect.LANGUAGE},
          r"\b(?:capital|upper)",
          """Write the whole answer in English and in capital letters only.
          Your entire answer must be in English, in all capital letters.
          Use nothing but capital letters, in English."""),
    Kind("change_case:english_lowercase", checks.all_lowercase, samplers.nothing, {*_CASE, Aspect.LANGUAGE},
          r"\b(?:lowercase|lower case|small letters|capital letters?)\b",
          """Write the whole answer in English and in lowercase letters only.
          Your entire answer must be in English, in all lowercase letters.
          Use no capital letters at all, and write in English."""),
    Kind("change_case:capital_word_frequency", checks.capital_words,
          _AMOUNT("capital_frequency", (2, 3, 4), (4, 6), "capital_relation"), _CASE, r"\bcapital",
          """Write {capital_relation} {capital_frequency} words in all capital letters.
          Let {capital_relation} {capital_frequency} words stand in capital letters only.
          Your answer must have {capital_relation} {capital_frequency} words in all capital letters."""),
    Kind("punctuation:no_comma", checks.no_comma, samplers.nothing, _MARKS, r"\bcommas?\b",
          """Do not use any commas.
          Write your whole answer without commas.
          Your answer must not contain a single comma."""),
    Kind("punctuation:forbidden_mark", checks.avoids_mark, samplers.one_of("mark", ("!", "?", ";", ":", "(")),
          {*_MARKS, Aspect.LAYOUT}, r"\b(?:not|no|avoid|without|never)\b",
          """Do not use the character "{mark}".
          Write without the mark "{mark}".
          Your answer must not contain "{mark}"."""),
    Kind("punctuation:mark_frequency", checks.mark_frequency, samplers.marks, _MARKS, r"\b(?:mark|character|use)",
          """Use the mark "{mark}" {relation} {frequency} time(s).
          The character "{mark}" must appear {relation} {frequency} time(s).
          Your answer must use "{mark}" {relation} {frequency} time(s)."""),
    Kind("language:response_language", checks.response_language, samplers.told_language, _LANGUAGE,
          r"\b(?:answer|write|response|reply)",
          """Answer in {language} only.
          Write your entire answer in {language}.
          Your whole answer must be in {language}, without any other language."""),
    Kind("detectable_format:constrained_response", checks.constrained_response, samplers.yes_or_no, EVERYTHING,
          r"my answer is yes.*my answer is no.*my answer is maybe",
          """Answer with exactly one of these: "My answer is yes." "My answer is no." "My answer is maybe."
          Say only one of "My answer is yes.", "My answer is no." and "My answer is maybe."
          Choose one and write nothing else: "My answer is yes." / "My answer is no." / "My answer is maybe.\""""),
    Kind("answer:numeric", numbers.numeric, samplers.never, {Aspect.RESULT}, r"\b(?:answer|result)",
          """The result of your answer must be {value}.
          Show that the answer is {value}.
          Your final answer must equal {value}."""),
    Kind("answer:agreement", numbers.agreement, samplers.never, {Aspect.RESULT}, r"\b(?:answer|result)",
          """End with "The answer is" and the result.
          Name the result at the end, after "The answer is".
          Close with the result, as "The answer is …"."""),
    # -- held out
    Kind("count:word_count_range", checks.word_range, samplers.only_for_texts(samplers.words_between), _LENGTH,
          r"\bwords\b",
          """Answer in {min_words} to {max_words} words.
          Your answer must have between {min_words} and {max_words} words.
          Write no fewer than {min_words} and no more than {max_words} words.""", held_out=True),
    Kind("count:unique_word_count", checks.unique_words, samplers.only_for_texts(samplers.number("N", 30, 90, 10)),
          _LENGTH, r"\b(?:different|unique|distinct)\b",
          """Use at least {N} different words.
          Your answer must contain at least {N} unique words.
          Let at least {N} distinct words appear.""", held_out=True),
    Kind("length_constraints:short_sentences", checks.short_sentences, samplers.number("max_words", 10, 16),
          _LENGTH, r"\bsentence",
          """No sentence may have more than {max_words} words.
          Keep every sentence to {max_words} words or fewer.
          Each sentence must have at most {max_words} words.""", held_out=True),
    Kind("sentence:keyword", checks.keyword_in_sentence, samplers.only_for_texts(samplers.keyword_and_place),
          {Aspect.WORDS, Aspect.LAYOUT, Aspect.START, Aspect.TITLE, Aspect.LENGTH, Aspect.CODE}, r"\bsentence\b",
          """Use the word "{word}" in sentence {N} of your answer.
          Sentence {N} must contain the word "{word}".
          Let the word "{word}" stand in sentence {N}.""", held_out=True),
    Kind("words:repeats", checks.limited_repeats, samplers.number("small_n", 2, 4),
          EVERYTHING - {Aspect.EMPHASIS, Aspect.CASE, Aspect.MARKS, Aspect.DIGITS}, r"\b(?:repeat|more than|times)\b",
          """Do not repeat any word more than {small_n} times.
          No word may appear more than {small_n} times.
          Use each word {small_n} times at most, never more than that.""", held_out=True),
    Kind("count:conjunctions", checks.conjunctions, samplers.only_for_texts(samplers.number("small_n", 2, 4)),
          {Aspect.WORDS, Aspect.LANGUAGE}, r"\bconjunctions?\b",
          """Use at least {small_n} different coordinating conjunctions.
          Your answer must contain at least {small_n} different coordinating conjunctions.
          Let at least {small_n} different coordinating conjunctions (and, but, or, …) appear.""", held_out=True),
    Kind("words:no_consecutive", checks.no_shared_initials, samplers.nothing, EVERYTHING, r"\bletter\b",
          """No two words in a row may begin with the same letter.
          Let no two neighbouring words start with the same letter.
          Consecutive words must not begin with the same letter.""", held_out=True),
    Kind("format:title_case", checks.title_case, samplers.nothing, _CASE, r"\b(?:title case|capital)",
          """Write the whole answer in title case, each word with a capital letter.
          Begin every word with a capital letter, and go on in small letters.
          Use title case for every word of the answer.""", held_out=True),
    Kind("format:no_whitespace", checks.no_whitespace, samplers.nothing, EVERYTHING, r"\b(?:whitespace|spaces)\b",
          """Write without any whitespace.
          Your answer must not contain whitespace of any kind.
          Leave out all spaces and line breaks.""", held_out=True),
    Kind("count:numbers", checks.count_of_numbers, samplers.number("N", 1, 5), _DIGITS, r"\bnumbers?\b",
          """Include exactly {N} number(s), in digits.
          Your answer must contain exactly {N} number(s) in digits.
          Write exactly {N} number(s) in digits, no more and no fewer.""", held_out=True),
)  # fmt: skip
