"""The language of a text, by its script and its most common words: in goes a text, out comes its ISO 639-1 code.

It takes no model and gives the same answer everywhere. Short texts and mixtures get no code.
"""

import re
from collections import Counter

# The most common words of each, without those that another of these languages shares often.
_COMMON = {
    "en": "a i all am in the of and to is that it for was on with as you this be are have not by from they at or"
    " his her we an which will would there their what can if your has more when who how about these than its"
    " into been do does were",
    "de": "der die das und ist nicht ein eine einen einem einer mit auf für von dem den des sich auch als im zu es ich"
    " sie wir wird werden sind war hat haben oder aber wenn durch nach bei aus über kann können zum zur wie dass",
    "fr": "le la les des est et une du dans qui que pour pas sur avec plus par ce cette sont il elle nous vous ils ou"
    " mais comme aux leur leurs être fait peut au ses ces si donc ont cela c'est d'une l'on en",
    "es": "el la los las de que y en un una es por con para se del al lo como más pero sus le ya o este sí porque esta"
    " son entre cuando muy sin sobre también hay donde todo nos durante uno ni contra otros ese eso ser está",
    "it": "il di che la è e un una per non con del della dei delle sono nel nella alla al da si come più anche ma gli"
    " questo questa ha lo le dal dalla tra perché essere può ogni degli sul sulla i o molto",
    "pt": "o a os as de que e do da em um uma para com não por mais dos das no na se como mas ao ele foi ou quando"
    " muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos são é está ser",
    "nl": "de het een en van ik te dat die in is niet op aan met als voor er maar om dan zou wat mijn hem over zij ook"
    " uit door naar heb hoe heeft hebben deze want nog zal wij worden werd zijn bij je kan",
}
_WORDS = {code: frozenset(words.split()) for code, words in _COMMON.items()}
_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
}
# Letters that the language itself does not use, of others in its script.
_FOREIGN = {"ru": re.compile("[іїєґўјљњћђѓќѕџ]", re.I), "ar": re.compile("[پچژگٹڈڑےھہ]")}
LANGUAGES = tuple(sorted({*_COMMON, *_SCRIPTS}))
_OWN_SHARE, _MARGIN = 0.12, 1.4


def language_of(text: str) -> str:
    """One of `LANGUAGES`, or "" where the text is too short, mixed, or in another language.

    >>> language_of("The cat sat on the mat and was not amused."), language_of("Die Katze ist nicht auf der Matte.")
    ('en', 'de')
    >>> language_of("天空是蓝色的"), language_of("空は青い"), language_of("Zurich!")
    ('zh', 'ja', '')
    """
    letters = sum(map(str.isalpha, text))
    counts = {code: len(pattern.findall(text)) for code, pattern in _SCRIPTS.items()}
    in_scripts = sum(counts.values())
    if in_scripts > letters / 2:
        return _by_script(counts, in_scripts, text)
    return _by_words(text.casefold()) if in_scripts <= letters / 10 else ""


def _by_script(counts: dict[str, int], total: int, text: str) -> str:
    if counts["ja"] and counts["ja"] >= total / 20:
        return "ja" if counts["ja"] + counts["zh"] >= 0.9 * total else ""
    code = max(counts, key=counts.__getitem__)
    foreign = code in _FOREIGN and _FOREIGN[code].search(text)
    return "" if foreign or counts[code] < 0.9 * total else code


def _by_words(text: str) -> str:
    found = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text)
    scores = Counter({code: sum(word in known for word in found) for code, known in _WORDS.items()})
    (first, most), (_, second) = scores.most_common(2)
    sure = most >= 2 and most >= _OWN_SHARE * len(found) and most >= _MARGIN * second
    return first if sure else ""
