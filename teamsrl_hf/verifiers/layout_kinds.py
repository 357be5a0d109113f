"""The table of kinds that concern an answer's layout: paragraphs, lists, tables, headings, JSON and code."""

from . import checks, formats, samplers
from .kind import EVERYTHING, Aspect, Kind

_LAYOUT = {Aspect.LAYOUT}
# Numbers of items and sections are digits; names of sections and labels have a case.
_NUMBERED = {Aspect.LAYOUT, Aspect.DIGITS}
_NAMED = {Aspect.LAYOUT, Aspect.DIGITS, Aspect.CASE, Aspect.LANGUAGE, Aspect.MARKS}
_WHOLE = EVERYTHING - {Aspect.WORDS}
_ONE_LINE = {Aspect.LAYOUT, Aspect.TITLE, Aspect.CODE, Aspect.END}


LAYOUT_KINDS = (
    Kind("length_constraints:number_paragraphs", checks.divided_paragraphs,
          samplers.only_for_texts(samplers.number("num_paragraphs", 2, 4)), _LAYOUT, r"\bparagraphs\b.*\*\*\*",
          """Write exactly {num_paragraphs} paragraphs, with a line of *** between them.
          Your answer must have {num_paragraphs} paragraphs, separated by the Markdown divider: ***
          Divide your answer into exactly {num_paragraphs} paragraphs by lines that hold only ***"""),
    Kind("length_constraints:blank_line_paragraphs", checks.blank_line_paragraphs,
          samplers.only_for_texts(samplers.number("num_paragraphs", 2, 5)), {Aspect.LAYOUT, Aspect.TITLE, Aspect.END},
          r"\bparagraphs\b.*\bblank line|\bblank line.*\bparagraphs\b",
          """Write exactly {num_paragraphs} paragraphs, with a blank line between them.
          Your answer must have exactly {num_paragraphs} paragraphs, separated by blank lines.
          Use blank lines to divide your answer into exactly {num_paragraphs} paragraphs."""),
    Kind("length_constraints:nth_paragraph_first_word", checks.nth_paragraph_first_word,
          samplers.only_for_texts(samplers.paragraph_and_word),
          {Aspect.LAYOUT, Aspect.START, Aspect.TITLE, Aspect.END, Aspect.CODE}, r"\bparagraph",
          """Write {num_paragraphs} paragraphs with a blank line between them; paragraph {nth_paragraph} must start with the word "{first_word}".
          There should be {num_paragraphs} paragraphs, separated by blank lines, and paragraph {nth_paragraph} must begin with "{first_word}".
          Use exactly {num_paragraphs} paragraphs, divided by blank lines, and start paragraph {nth_paragraph} with the word "{first_word}"."""),  # noqa: E501
    Kind("length_constraints:number_lines", checks.number_of_lines, samplers.number("num_lines", 3, 8),
          {Aspect.LAYOUT, Aspect.CODE, Aspect.LENGTH}, r"\blines\b",
          """Write exactly {num_lines} lines, not counting blank ones.
          Your answer must have exactly {num_lines} lines of text.
          Use exactly {num_lines} lines of text."""),
    Kind("length_constraints:number_items", formats.number_of_items,
          samplers.amount("num_items", (3, 4, 5), (5, 6, 8)), _NUMBERED, r"\bitems\b",
          """Answer with a list of {relation} {num_items} items.
          Your answer must list {relation} {num_items} items, as a Markdown list.
          Give a bullet or numbered list with {relation} {num_items} items."""),
    Kind("detectable_format:number_bullet_lists", formats.number_of_bullets, samplers.number("num_bullets", 2, 6),
          _LAYOUT, r"\bbullet",
          """Use exactly {num_bullets} Markdown bullet points, each beginning with "* " or "- ".
          Your answer must contain exactly {num_bullets} bullet points, each on a line that starts with "* " or "- ".
          Include exactly {num_bullets} bullet points, no more and no fewer."""),
    Kind("detectable_format:numbered_list", formats.numbered_list, samplers.number("num_items", 3, 7), _NUMBERED,
          r"\bnumbered\b",
          """Include a numbered list of exactly {num_items} items.
          Answer with a numbered list (1., 2., …) of exactly {num_items} items.
          Your answer must have one numbered list with exactly {num_items} items."""),
    Kind("detectable_format:number_highlighted_sections", formats.highlighted_sections,
          samplers.only_for_texts(samplers.number("num_highlights", 1, 4)), {Aspect.EMPHASIS},
          r"\b(?:highlight|asterisks|bold)",
          """Highlight at least {num_highlights} passage(s) with Markdown, such as *highlighted passage*.
          Put at least {num_highlights} passage(s) between asterisks, *like this*.
          Your answer must have at least {num_highlights} passage(s) highlighted by asterisks."""),
    Kind("detectable_format:multiple_sections", formats.multiple_sections,
          samplers.only_for_texts(samplers.sections), _NAMED, r"\bsections?\b|\bparts?\b|\bchapters?\b",
          """Write {num_sections} sections, each headed "{section_spliter}" and its number, as in {section_spliter} 1.
          Your answer must have {num_sections} sections, marked {section_spliter} X, where X is the section's number.
          Divide your answer into {num_sections} parts, each headed "{section_spliter}" and a number from 1."""),
    Kind("detectable_format:headings", formats.headings,
          samplers.only_for_texts(samplers.number("num_headings", 2, 4)), {Aspect.LAYOUT, Aspect.TITLE},
          r"\bheadings\b",
          """Structure your answer with exactly {num_headings} Markdown headings.
          Use exactly {num_headings} Markdown headings (lines that start with #).
          Your answer must have exactly {num_headings} headings in Markdown."""),
    Kind("detectable_format:markdown_table", formats.markdown_table, samplers.number("num_columns", 2, 4), _LAYOUT,
          r"\btable\b",
          """Include a Markdown table with exactly {num_columns} columns.
          Your answer must contain a Markdown table of exactly {num_columns} columns.
          Present the main points in a Markdown table with {num_columns} columns."""),
    Kind("detectable_format:json_format", formats.json_format, samplers.nothing, _WHOLE, r"\bjson\b",
          """Write your whole answer as JSON.
          Your entire answer must be in JSON format.
          Give nothing but valid JSON."""),
    Kind("detectable_format:json_keys", formats.json_keys, samplers.one_of("keys", samplers.JSON_KEYS), _WHOLE,
          r"\bjson\b",
          """Answer with nothing but a JSON object that has exactly the keys {keys}.
          Your whole answer must be one JSON object with the keys {keys} and no others.
          Give your answer as JSON, with exactly these keys: {keys}."""),
    Kind("detectable_format:title", formats.title, samplers.nothing, {Aspect.TITLE}, r"\btitle\b.*<<|<<.*\btitle\b",
          """Put a title in double angle brackets, such as <<title>>, on a line of its own.
          Your answer must have a title on its own line, in double angle brackets, such as <<poem of joy>>.
          Give your answer a title, written on its own line as <<title>>."""),
    Kind("detectable_format:code_fence", formats.code_fence, samplers.code_language, {Aspect.CODE},
          r"\b(?:block|fence)",
          """Put the code in a Markdown code block marked as {language}.
          Your answer must contain a fenced code block that names the language {language}.
          Write all code in fenced blocks that begin with ```{language}"""),
    Kind("detectable_format:one_line", formats.one_line, samplers.nothing, _ONE_LINE, r"\bline\b|\bline breaks?\b",
          """Write your answer on a single line.
          Your whole answer must stand on one line.
          Use no line breaks."""),
    Kind("detectable_format:no_lists", formats.no_lists, samplers.nothing, {Aspect.LAYOUT, Aspect.CODE}, r"\blists?\b",
          """Write plain prose, without lists or headings.
          Use neither lists nor headings.
          Your answer must not contain any list or heading."""),
    Kind("combination:two_responses", formats.two_responses, samplers.only_for_texts(samplers.nothing),
          {Aspect.LAYOUT, Aspect.TITLE, Aspect.CODE, Aspect.EMPHASIS}, r"\*{6}",
          """Give two different answers, with a line of six asterisks between them: ******
          Answer twice, in two different ways, and put ****** on a line between the answers.
          Your reply must hold two different answers, separated by a line of ******"""),
    # -- held out
    Kind("format:list", checks.separated_list, samplers.one_of("sep", samplers.SEPARATORS),
          {Aspect.LAYOUT, Aspect.MARKS}, r"\blist\b",
          """Answer with a list of items, each on a line that begins with {sep} in place of a bullet.
          Your answer must be a list whose items begin with {sep} instead of bullet points.
          Give a list, and start each item on a new line with {sep}""", held_out=True),
    Kind("detectable_format:alphabetical_items", formats.alphabetical_items, samplers.number("num_items", 3, 6),
          _NUMBERED, r"\balphabet",
          """Give a list of exactly {num_items} items in alphabetical order.
          Your answer must contain one list of exactly {num_items} items, sorted alphabetically.
          List exactly {num_items} items alphabetically.""", held_out=True),
    Kind("detectable_format:labelled_lines", formats.labelled_lines, samplers.one_of("labels", samplers.LABELS),
          _NAMED, r"\b(?:line|label)",
          """Give lines that begin with the labels {labels}, each followed by a colon, in this order.
          Your answer must have one line for each of the labels {labels}, in this order, such as "Label: text".
          Label the lines of your answer {labels}, in this order, each with a colon.""", held_out=True),
    Kind("detectable_format:tagged", formats.tagged, samplers.one_of("tag", samplers.TAGS), _WHOLE, r"<\w+>",
          """Put your whole answer between <{tag}> and </{tag}>.
          Your entire answer must stand between the tags <{tag}> and </{tag}>.
          Start your answer with <{tag}> and end it with </{tag}>.""", held_out=True),
)  # fmt: skip
