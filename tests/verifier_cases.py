"""Answers written by hand for each kind of verifier: those that keep its constraint, and those that do not."""

TABLE = "| a | b |\n|---|:-:|\n| 1 | 2 |"
PYTHON = "```python\nprint(1)\n```"

# id: (arguments, answers that pass, answers that fail)
CASES = {
    "length_constraints:number_words": (
        {"num_words": 4, "relation": "at least"},
        ["One two three four", "Wörter zählen, auch größere.", "- one\n- two\n- three\n- four"],
        # A hyphen or an apostrophe might or might not part words.
        ["", "One two three", "a well-known fact", "it's what's on", "... !!! ??? --- one", "天空是蓝的"],
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"},
        ["One. Two.", "Only this", "Is it? Yes!", "Pi is 3.14 today."],
        ["", "One. Two. Three.", "a\nb\nc", "Dr. Li came. He left.", "天空。海洋。山。"],
    ),
    "length_constraints:number_characters": (
        {"num_characters": 5, "relation": "at least"},
        ["12345", "größe", "天空是蓝的"],
        ["", "1234", "  12  ", "\n\n\n\n\n\n", "größ"],
    ),
    "keywords:existence": (
        {"keywords": ["bread", "C++"]},
        ["Bread in C++", "the (bread), then C++.", "**bread** `C++`"],
        ["", "bread", "breads and C++", "C and bread", "gingerbread C++"],
    ),
    "keywords:frequency": (
        {"keyword": "art", "frequency": 2, "relation": "at least"},
        ["Art is art.", "art, ART", "*art* and `art`"],
        ["", "art", "start part", "art starts", "arts and art"],
    ),
    "keywords:forbidden_words": (
        {"forbidden_words": ["very", "just"]},
        ["All is justified.", "Every one.", "Größe"],
        ["", "Very good", "It is JUST so", "`very`", "very-well"],
    ),
    "keywords:order": (
        {"keywords": ["sea", "sky"]},
        ["The sea, the sky.", "Sea\n\nand SKY", "sea sky sea"],
        ["", "sky sea", "sea", "seas sky", "sky, then sea, then sky"],
    ),
    "keywords:letter_frequency": (
        {"letter": "q", "let_frequency": 2, "let_relation": "less than"},
        ["Quick", "No such letter", "größe q"],
        ["", "Qq", "quite quick", "`q` and q", "!!!"],
    ),
    "keywords:initial_letter": (
        {"letter": "b", "frequency": 2, "relation": "at least"},
        ["Big bread", "**Bake** (bread)", "a b\nc b"],
        ["", "Bread", "abba cab", "bed-bugs", "größe"],
    ),
    "startend:first_word": (
        {"first_word": "Imagine"},
        ["Imagine a sea.", '"imagine," she said', "**Imagine** it", "# Imagine"],
        ["", "Well, imagine", "Imagined", "I imagine", "```\nprint()\n```"],
    ),
    "startend:last_word": (
        {"last_word": "done"},
        ["It is done.", "Done", 'He said "done!"', "It is **done**"],
        ["", "undone", "done, or not", "It's done by me", "done 2"],
    ),
    "startend:end_checker": (
        {"end_phrase": "More on this another time."},
        ["So. More on this another time.", "so - more on this another time.", '"So. More on this another time."\n'],
        ["", "More on this another time. Bye", "More on this another time.", "Evermore on this another time."],
    ),
    "startend:ends_with_question": (
        {},
        ["So. What do you think?", "Why?", "*Would you?*", 'He asked "why?"'],
        ["", "Why? Because.", "?", "What.", "a\n?"],
    ),
    "startend:quotation": (
        {},
        ['"Yes, it is."', '  "a\nb"  ', '"She said "größer" twice"'],
        ["", '"Yes," she said. "No."', '"Say "yes"', '"Yes', "'Yes'", '""', "“Yes”", 'He said "yes"'],
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Why is bread soft?"},
        ["Why is bread soft? Water.", "why is bread soft?\n\nSteam.", "  Why is bread soft? - A"],
        ["", "Why is bread soft?", "Water.", "You asked: Why is bread soft? Water.", "Why is bread so soft? A"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.S."},
        ["Dear all\nP.S. Bring bread", "Text.\n\np.s. more\non two lines", "A\n\nP.S.: B"],
        ["", "P.S. alone", "P.S.\nall", "P.S. first\n\nThen this", "Text\nP.S.", "Text P.S. inside", "Text\n\nPS no"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["Dear [name] of [city]", "[Straße] [größe]", "[first name], [last name], [date]"],
        ["", "[name]", "[link](http://x) [name]", "- [ ] a [x] b", "`[name]` and [city]", "[1] [2]"],
    ),
    "detectable_content:quoted_passages": (
        {"num_quotes": 1},
        ['She said "go away" twice', "“zwei Wörter”", 'a "b c" d'],
        ["", '"one"', '"split\nline here"', "'two words'", '`"a b"`'],
    ),
    "detectable_content:no_digits": (
        {},
        ["Two of them", "IV and V", "größer"],
        ["", "2 of them", "x²", "`1`", "٣ books", "!!!"],
    ),
    "change_case:english_capital": (
        {},
        ["THE CAT IS ON THE MAT.", "YES, IT IS!", "**IT IS THE SEA**"],
        ["", "The cat", "THE CAT iS", "DIE KATZE IST NICHT AUF DER MATTE", "123", "天空"],
    ),
    "change_case:english_lowercase": (
        {},
        ["the cat is on the mat.", "yes, it is!", "- it is the sea"],
        ["", "The cat", "the caT", "die katze ist nicht", "123", "`A` it is", "```\nx = y\n```", "~ ls -l | awk '$9'"],
    ),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA", "**STOP** or GO!", "SEHR GROẞ"],
        ["", "NASA", "I A B", "Nasa Esa", "NASA x"],
    ),
    "punctuation:no_comma": (
        {},
        ["No such mark here.", "a; b", "größer"],
        ["", "a, b", "一，二", "1,000", "`f(a, b)`", "،a"],
    ),
    "punctuation:forbidden_mark": (
        {"mark": "!"},
        ["No.", "größer", "- a\n- b"],
        ["", "Yes!", "a！", "`!=`", "!!!"],
    ),
    "punctuation:mark_frequency": (
        {"mark": "?", "frequency": 2, "relation": "at least"},
        ["Why? How?", "What??", "a? `b?`"],
        ["", "Why?", "None", "??", "one ? ."],
    ),
    "language:response_language": (
        {"language": "de"},
        [
            "Die Katze ist nicht auf der Matte.",
            "Brot wird weich, weil das Wasser verdampft und der Teig sich dehnt.",
            "# Überschrift\n\nDas ist ein Text über die Größe der Stadt.\n\n`for x in y`",
        ],
        [
            *("", "The cat is on the mat.", "Ja.", "天空是蓝的", "Le chat est sur la table et il dort."),
            "Das ist ein Text über die Stadt.\n\nThis is the part that is not in that language.",
        ],
    ),
    "detectable_format:constrained_response": (
        {},
        ["My answer is yes.", " My answer is no.\n", "My answer is maybe."],
        ["", "yes", "My answer is yes", "My answer is no. My answer is yes.", "**My answer is no.**"],
    ),
    "answer:numeric": (
        {"value": "1200.5"},
        ["The answer is $1,200.50.", "So 2401/2", r"Thus \boxed{1200.5}", "The answer is 1200 + .5 = 1200.5"],
        ["", "No number", "1200", "The answer is 1200.5, no: the answer is 3.", "1200.5 and 7", r"\boxed{12} 1200.5"],
    ),
    "answer:agreement": (
        {"answers": ["It is 7.", "7", "The answer is 8", "none"], "share": 0.5},
        ["7", "The answer is 7.0", r"\boxed{7}"],
        ["", "8", "9", "none", "seven"],
    ),
    "count:word_count_range": (
        {"min_words": 2, "max_words": 4},
        ["Two words", "one two three four", "größer als"],
        ["", "One", "1 2 3 4 5", "well-known so-so x", "一二三四五"],
    ),
    "count:unique_word_count": (
        {"N": 3},
        ["a b c", "The sea, the sky", "eins zwei größer"],
        ["", "a b", "a A a, a!", "sea sea-", "!!! ??? ..."],
    ),
    "length_constraints:short_sentences": (
        {"max_words": 3},
        ["One two three. Four.", "a\nb c", "Größer! Warum?"],
        ["", "One two three four.", "One. a b c d", "a well-known little thing", "- one two three four"],
    ),
    "sentence:keyword": (
        {"word": "sea", "N": 2},
        ["One. The sea.", "Why? SEA! No.", "Dr. Li came. A sea."],
        ["", "The sea. One.", "The sea", "One:\nA. The sea.", "One. The seas.", "One. Two. Sea."],
    ),
    "words:repeats": (
        {"small_n": 1},
        ["each word once", "Größe zählt", "- a\n- b"],
        ["", "the the", "The sea, the sky", "a-b ab", "!!!"],
    ),
    "count:conjunctions": (
        {"small_n": 2},
        ["this and that or so", "But, yet!", "**And**; so"],
        ["", "The reason for bread and salt", "and And and", "band order", "sand, for", "oder und"],
    ),
    "words:no_consecutive": (
        {},
        ["one two", "the sea is big", "größer als"],
        ["", "big bread", "The tall", "a - apple", "!!!"],
    ),
    "format:title_case": (
        {},
        ["The Sea Is Big", "A Well-Known Größe", "# It's Here: 3 Things"],
        ["", "The sea", "the", "THE Sea", "McDonald", "123"],
    ),
    "format:no_whitespace": (
        {},
        ["word", "größer,als", "天空是蓝的"],
        ["", "two words", "a\nb", "a\tb", "a\u00a0b"],
    ),
    "count:numbers": (
        {"N": 2},
        ["3 and 4", "3.5 or 1,000", "a1 b2"],
        ["", "3", "1 2 3", "two three", "1/2 x", "3-4", "- 100 000"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n***\nb", "a\n\n***\n\nb", "***\na\n***\nb\n***"],
        ["", "a\n\nb", "a *** b", "a\n***\n***\nb", "a\n***\nb\n***\nc", "***a***\n***\nb"],
    ),
    "length_constraints:blank_line_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n\nb", "a\n \n\n\nb\nc", "\n\na\n\nb\n"],
        ["", "a", "a\nb", "a\n\nb\n\nc", "a\n\n```\nx\n\ny\n```", "# a\n\nb", "a\n\n- b\n- c"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "today"},
        ["a\n\nToday we", 'a\n\n"Today," he', "a b\nc\n\ntoday."],
        ["", "Today\n\na", "a\n\n**Today**", "a\n\nTodays", "a\n\nToday\n\nb", "a\n\n\n\ntoday", "a\n\ntoday: x"],
    ),
    "length_constraints:number_lines": (
        {"num_lines": 3},
        ["a\nb\nc", "a\n\nb\n\nc\n", "größer\n- x\n```"],
        ["", "a", "a\nb", "a\nb\nc\nd", "a b c"],
    ),
    "length_constraints:number_items": (
        {"num_items": 3, "relation": "less than"},
        ["- a\n- b", "1. a", "* ä\n* ö"],
        ["", "a, b", "- a\n- b\n- c", "1. a\n2. b\n3. c", "- a\n1. b\n2. c", "```\n- a\n```"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* a\n* b", "Text:\n- a\n  - b", "* größer\n* **b**"],
        ["", "* a", "* a\n* b\n* c", "1. a\n2. b", "* a\n* b\n---", "* a\n* b\n```\n- x\n```", "• a\n• b"],
    ),
    "detectable_format:numbered_list": (
        {"num_items": 2},
        ["1. a\n2. b", "Text:\n1) ä\n2) ö", "1. a\n   more\n2. b"],
        ["", "1. a", "1. a\n1. b", "2. a\n3. b", "- a\n- b", "```\n1. a\n2. b\n```", "1. a\n2. b\n3. c"],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*a* and **b**", "**größer** *als b*", "x *a* *b* *c*"],
        ["", "*a*", "* a\n* b", "2*3*4 and *a*", "`*a*` *b*", "** ** **a**", "***"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "## Section 1: a b\nc\n\n## Section 2\nd", "**Section 1** größer\nSection 2 x"],
        ["", "Section 1\na", "Section 1\nSection 2", "SECTION 1\na\nSECTION 2\nb", "Section 2\na\nSection 1\nb",
         "See Section 1 and Section 2.", "Section 1\na\nSection 2\nb\nSection 3\nc"],
    ),
    "detectable_format:headings": (
        {"num_headings": 2},
        ["# a\nx\n# b", "## größer\n\n### b\ny", "# a\n# b\n```\n# no\n```"],
        ["", "# a", "#a\n#b", "**a**\n**b**", "# a\n# b\n# c", "```\n# a\n# b\n```"],
    ),
    "detectable_format:markdown_table": (
        {"num_columns": 2},
        [TABLE, "Text\n\na | b\n--|--\n1 | größer", "| a \\| x | b |\n| - | - |\n| 1 | 2 |"],
        ["", "| a | b |", "| a | b |\n|---|---|", "| a | b | c |\n|-|-|-|\n| 1 | 2 | 3 |", f"```\n{TABLE}\n```",
         "| a | b |\n|---|---|\n|  |  |", "| a | b |\n|---|---|\n| 1 |"],
    ),
    "detectable_format:json_format": (
        {},
        ['{"a": 1}', '```json\n[1, "größer"]\n```', ' {"a": {"b": []}} '],
        ["", "{}", "[]", "3", "{'a': 1}", 'Here: {"a": 1}', '{"a": NaN}', '{"a": 1', "[" * 5000],
    ),
    "detectable_format:json_keys": (
        {"keys": ["answer", "reason"]},
        ['{"answer": "x", "reason": "y"}', '```json\n{"reason": 0, "answer": 1}\n```', '{"answer": [1], "reason": 2}'],
        ["", '{"answer": 1}', '{"answer": 1, "reason": ""}', '{"answer": 1, "reason": 2, "more": 3}',
         '[{"answer": 1, "reason": 2}]', '{"Answer": 1, "reason": 2}'],
    ),
    "detectable_format:title": (
        {},
        ["<<Bread>>\nText", "Text\n<<größer als>>", "# <<A title>>\n\nText"],
        ["", "<<poem of joy>>", "<< >>\na", "<Bread>", "cout << x >> y", "```\n<<a>>\n```", "<<it>> in", "<<a\nb>>"],
    ),
    "detectable_format:code_fence": (
        {"language": "python"},
        [PYTHON, f"Text\n\n{PYTHON}\nmore", "```py\nx = 'größer'\n```"],
        ["", "print(1)", "```\nprint(1)\n```", "```python\n```", f"{PYTHON}\n```bash\nls\n```", "`python`"],
    ),
    "detectable_format:one_line": (
        {},
        ["One line.", "  größer  \n", "天空"],
        ["", "a\nb", "a\n\nb", "a\r\nb", "a\u2028b", "!!!"],
    ),
    "detectable_format:no_lists": (
        {},
        ["Plain prose.\n\nMore of it.", "größer", "A dash - here"],
        ["", "- a", "1. a", "# a\nb", "text\n- a", "• a\n• b", "**Bread**\nIt is soft", "So:\n```\nx\n```"],
    ),
    "combination:two_responses": (
        {},
        ["One way.\n******\nAnother way.", "a\n\n******\n\nb", "größer\n******\nkleiner"],
        ["", "a\n******", "a\n******\na", "A!\n******\na", "a ****** b", "a\n******\nb\n******\nc", "a\n***\nb"],
    ),
    "format:list": (
        {"sep": "~~"},
        ["~~ a\n~~ b", "Text\n~~a\n~~größer\n~~c", "~~ a\n\n~~ b"],
        ["", "~~ a", "a ~~ b ~~ c", "~~\n~~", "- a\n- b", "~~ a\n~~ b\n- c"],
    ),
    "detectable_format:alphabetical_items": (
        {"num_items": 3},
        ["- a\n- b\n- c", "1. Apfel\n2. birne\n3. Größe", "* a\n* a b\n* **b**"],
        ["", "- b\n- a\n- c", "- a\n- b", "- a\n- b\n- c\n- d", "a, b, c", "```\n- a\n- b\n- c\n```"],
    ),
    "detectable_format:labelled_lines": (
        {"labels": ["Answer", "Reason"]},
        ["Answer: a\nReason: b", "**Answer:** größer\n\n**Reason**: b", "Text\nAnswer: a\nmore\nReason: b"],
        ["", "Answer: a", "Reason: b\nAnswer: a", "Answer:\nReason:", "answer: a\nreason: b", "Answer: a Reason: b",
         "Answer: a\nReason: b\nAnswer: c"],
    ),
    "detectable_format:tagged": (
        {"tag": "answer"},
        ["<answer>a</answer>", " <answer>\ngrößer\n</answer>\n", "<answer><b>a</b></answer>"],
        ["", "<answer></answer>", "a", "So: <answer>a</answer>", "<answer>a", "<Answer>a</Answer>",
         "<answer>a</answer><answer>b</answer>"],
    ),
}  # fmt: skip
