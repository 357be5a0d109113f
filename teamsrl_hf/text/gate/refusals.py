"""Refusals: in goes a text in one of some twenty languages, out comes whether it begins by declining."""

import re
import unicodedata
from collections.abc import Iterable

from ..words import count_words

# A text may tell of somebody who cannot help: only its beginning counts, and an answer must be short as well.
_BEGINNING = 200
_SHORT_ANSWER = 80  # Words.
_UNABLE = (
    r"\b(?:i|we)(?: (?:can't|cannot|can not|won't|will not|couldn't|could not|must decline to)"
    r"|(?:'m| am|'re| are) (?:unable|not able|not allowed|not permitted|not comfortable)(?: to)?) (?:\w+ ){0,2}?"
)
_DECLINED_ANSWER = re.compile(
    rf"{_UNABLE}(?:help(?! but| \w+ing\b| myself)|assist|comply|fulfill?|provide|answer|respond|create|generate|write"
    r"|produce|complete|engage|support|offer|discuss|share|do (?:that|this|so))\b"
    r"|\bas an? (?:ai|(?:large )?language|ai language) (?:model|assistant),? i\b",
    re.I,
)
# An instruction may well begin with what its author cannot do; only what nobody asks of himself counts.
_DECLINED_REWRITE = re.compile(
    rf"{_UNABLE}(?:(?:help|assist)(?: you)? with (?:that|this|the|your) (?:request|instruction|task)|assist with that"
    r"|comply|fulfill? (?:that|this|your|the)|rewrite|carry out (?:that|this|the|your))\b",
    re.I,
)
# An apology that opens an answer, unless it says what for: then somebody in a letter apologises.
_SORRY = re.compile(
    r"\A\W*(?:(?:oh|well|hello|hi|no|unfortunately)\W+)?(?:(?:i'm|i am|we're|we are)(?: \w+){0,2} )?sorry\b"
    r"(?!,? (?:for|about|to (?:hear|see|have|be|keep|bother)|i(?:'m| was| am) late"
    r"|(?:that )?(?:i|we) (?:was|were|am|are|have|had|did|forgot|missed|hurt|broke|lost|left|let)\b))"
    r"|\A\W*(?:i apologi[sz]e|my apologies|apologies)\b(?=.{0,60}\b(?:but|can(?:no|')t|unable|not)\b)",
    re.I | re.S,
)
# By language: words of regret, the inability that must follow them soon, and an inability that needs no regret
# because it names what only an assistant is asked for.
_LANGUAGES = {
    "zh": (
        "抱歉|对不起|對不起|不好意思|遗憾|遺憾",
        "无法|不能|不便|没办法|難以|难以|無法|沒辦法|不可以|不会提供|[帮幫答]不了",
        "我们?(?:恐怕|实在|暂时|目前|現在|现在|确实)?(?:无法|無法|不能|不便|没办法|沒辦法)(?:[为為给給向]您|帮您|幫您|在此|直接)?"
        "(?:协助|協助|帮助|幫助|满足|滿足|提供|回答|完成您|处理|處理|执行|執行|生成|遵从|遵從|参与)|作为一?[个名]?(?:AI|人工智能)",
    ),
    "ja": (
        "申し訳|すみません|恐れ入り|残念ながら|ごめんなさい|恐縮",
        "(?:でき|られ|いたし)ません|かねます|できない|いたしかね|控え",
        "(?:お手伝い|お応え|お答え|対応|ご?提供|ご?回答|ご?協力|お力添え)(?:すること)?[はがを]?(?:でき|いたし|し)(?:ません|かねます)",
    ),
    "hi": (
        "क्षमा|माफ़|माफ|खेद|अफ़सोस|अफसोस",
        "नहीं|असमर्थ",
        "मैं.{0,60}(?:मदद|सहायता|उत्तर|जवाब|अनुरोध|जानकारी|सामग्री).{0,25}(?:नहीं|असमर्थ)",
    ),
    "es": (
        r"lo siento|disculp[ae]|perd[oó]n|lament|me temo|desafortunad|desgraciad",
        r"\bno (?:puedo|podemos|me es posible|es posible|estoy|soy capaz|poder|puede)",
        r"\bno (?:puedo|podemos|estoy autorizad[oa] a) (?:\w+ )?"
        "(?:ayudar|asistir|cumplir|responder|proporcionar|ofrecer|generar|atender|satisfacer)",
    ),
    "fr": (
        r"désolée?s?\b|regrette|malheureusement|je crains|excus|navrée?",
        r"\bn(?:e |')(?:\w+ )?(?:peux|puis|suis|pouvons|sommes|saurais|est)\b|impossible",
        r"\bje ne (?:peux|puis|saurais|suis pas en mesure)(?: \w+){0,4} "
        r"(?:aider|répondre|assister|fournir|satisfaire|accéder|donner suite)",
    ),
    "ar": (
        "عذر|آسف|اسف|أعتذر|اعتذر|للأسف|نأسف|يؤسفني",
        "لا (?:أستطيع|استطيع|يمكن|نستطيع|أقدر)|لا أتمكن|لن (?:أتمكن|أستطيع)|لست قادر|غير قادر|ليس بإمكاني",
        "(?:لا (?:أستطيع|يمكنني)|لن أتمكن من|لا أتمكن من) (?:أن )?"
        "(?:ال)?(?:مساعد|أساعد|تقديم|تلبية|إجابة|الإجابة|أجيب|تنفيذ)",
    ),
    "bn": (
        "দুঃখিত|ক্ষমা|মাফ|দুর্ভাগ্য",
        "পারছি না|পারব না|পারবো না|পারি না|অক্ষম|সম্ভব ন|অপারগ",
        "আমি.{0,60}(?:সাহায্য|সহায়তা|উত্তর|অনুরোধ).{0,30}(?:পারছি না|পারব না|পারবো না|পারি না|অক্ষম)",
    ),
    "pt": (
        r"desculp|sinto muito|lament|infelizmente|perdão|perdoe",
        r"\bnão (?:posso|consigo|podemos|conseguimos|sou capaz|estou|me é possível|é possível)",
        r"\bnão (?:posso|consigo|podemos|tenho permissão para) (?:\w+ )?"
        "(?:ajudar|auxiliar|cumprir|responder|fornecer|oferecer|gerar|atender)",
    ),
    "ru": (
        "извини|простите|прости,|к сожалению|сожале|мне жаль|прошу прощения",
        r"\bне (?:могу|можем|смогу|сможем|в состоянии|имею|способ)",
        r"\b(?:я|мы) не (?:могу|можем|смогу|в состоянии) (?:\w+ ){0,3}"
        "(?:помочь|ответить|выполнить|предоставить|помогать|содействовать)",
    ),
    "ur": (
        "معذرت|معاف|افسوس|شرمندہ",
        "نہیں|قاصر|ناممکن",
        "میں.{0,60}(?:مدد|جواب|درخواست|معلومات).{0,25}(?:نہیں|قاصر)",
    ),
    "de": (
        r"tut mir(?: \w+)? leid|entschuldig|bedau(?:re|er)|leider|verzeih",
        r"\b(?:kann|können|darf|könnte|bin)\b.{0,60}\b(?:nicht|keine?n?)\b"
        r"|\bnicht .{0,40}\b(?:kann|können|darf)\b",
        r"\b(?:ich|wir) (?:kann|können|darf|dürfen)\b.{0,40}\b(?:nicht|keine?)\b.{0,20}\b"
        r"(?:helfen|weiterhelfen|beantworten|unterstützen|nachkommen|erfüllen|bereitstellen)",
    ),
    "it": (
        r"mi dispiace|spiacente|purtroppo|scus|temo",
        r"\bnon (?:posso|possiamo|sono in grado|mi è possibile|riesco)",
        r"\bnon (?:posso|sono in grado di) (?:\w+ )?(?:aiutar|assister|risponder|fornir|soddisfar)",
    ),
    "ko": (
        "죄송|미안|유감|안타깝",
        "없|못|어렵|불가",
        "(?:도와|도움을|답변|제공|요청).{0,20}(?:수 없습니다|드릴 수 없)",
    ),
    "id": (
        r"maaf|sayangnya|menyesal",
        r"\btidak (?:dapat|bisa|mampu|boleh)",
        r"\bsaya tidak (?:dapat|bisa) (?:\w+ )?(?:membantu|memenuhi|menjawab|memberikan)",
    ),
    "vi": (
        r"xin lỗi|rất tiếc|tiếc rằng",
        r"không thể|không được phép",
        r"tôi không thể (?:\w+ )?(?:giúp|hỗ trợ|trả lời|cung cấp|đáp ứng)",
    ),
    "tr": (
        r"üzgünüm|özür|maalesef|kusura",
        r"\w+(?:amam|emem|amıyorum|emiyorum|amayız|emeyiz)\b",
        r"yardımcı olam|yanıt veremem|yerine getirem",
    ),
    "nl": (
        r"sorry|het spijt|helaas|excus",
        r"\b(?:kan|mag|kunnen)\b.{0,60}\b(?:niet|geen)\b",
        r"\bik kan\b.{0,40}\b(?:niet|geen)\b.{0,20}\b(?:helpen|beantwoorden|voldoen|geven)",
    ),
    "pl": (
        r"przepraszam|przykro|niestety|wybacz",
        r"\bnie (?:mogę|możemy|jestem|jest|potrafię)",
        r"\bnie mogę (?:\w+ ){0,3}(?:pomóc|odpowiedzieć|spełnić|udzielić|dostarczyć)",
    ),
    "fa": (
        "متأسف|متاسف|ببخشید|عذر|شرمنده",
        "نمی.?توان|قادر نیست|امکان.?پذیر نیست",
        "من نمی.?توانم.{0,40}(?:کمک|پاسخ|ارائه)",
    ),
    "th": ("ขอโทษ|ขออภัย|เสียใจ", "ไม่สามารถ|ไม่อาจ|ไม่ได้", "(?:ฉัน|ผม|ดิฉัน|เรา)ไม่สามารถ(?:ช่วย|ตอบ|ให้|ดำเนินการ)"),
}


def _compiled(alternatives: Iterable[str]) -> re.Pattern[str]:
    return re.compile(unicodedata.normalize("NFC", "|".join(alternatives)), re.I | re.S)


# Patterns are slow to look for, and most texts hold none of the plain words that their matches begin with or contain.
_UNABLE_HINTS = ("not", "n't", "unable", "decline", "as a")
_SORRY_HINTS = ("sorry", "apolog")
_REGRET_HINTS = tuple(
    unicodedata.normalize("NFC", re.sub(r".[?].*|[\\(\[.].*", "", word))
    for regret, _, _ in _LANGUAGES.values()
    for word in regret.split("|")
)
_REGRET_HINTS_IN_ASCII = tuple(filter(str.isascii, _REGRET_HINTS))
_WITH_REGRET = _compiled(
    rf"\A.{{0,30}}?(?:{regret}).{{0,80}}?(?:{unable})" for regret, unable, _ in _LANGUAGES.values()
)
_BARE = {name: rf"\A.{{0,60}}?(?:{bare})" for name, (_, _, bare) in _LANGUAGES.items()}
_BARE_IN_ASCII = _compiled(map(_BARE.__getitem__, ("es", "fr", "de", "it", "id", "nl", "tr")))
_BARE_IN_ANY = _compiled(_BARE.values())


def declines_answer(response: str) -> bool:
    """Whether an answer is a short refusal.

    >>> declines_answer("Sorry, I cannot help with that."), declines_answer("很抱歉，我无法回答这个问题。")
    (True, True)
    >>> declines_answer("I am sorry for being late with this letter. The garden is doing well.")
    False
    """
    start = _start(response)
    lower = start.lower()
    bare = _BARE_IN_ASCII if start.isascii() else _BARE_IN_ANY
    declines = (
        (_any_in(_SORRY_HINTS, lower) and _SORRY.search(start))
        or (_any_in(_UNABLE_HINTS, lower) and _DECLINED_ANSWER.search(start))
        or _regrets(start)
        or bare.search(start)
    )
    return bool(declines) and count_words(response) < _SHORT_ANSWER


def declines_rewrite(rewrite: str) -> bool:
    """Whether a model declined to rewrite. The author of an instruction may well begin with what they cannot do.

    >>> declines_rewrite("I can't assist with that request."), declines_rewrite("I cannot sleep. Explain why.")
    (True, False)
    """
    start = _start(rewrite)
    if _any_in(_UNABLE_HINTS, start.lower()) and _DECLINED_REWRITE.search(start):
        return True
    asks = "?" in rewrite or "？" in rewrite or "؟" in rewrite
    return not asks and _regrets(start)


def _start(text: str) -> str:
    return unicodedata.normalize("NFC", text[:_BEGINNING]).replace("’", "'")


def _regrets(start: str) -> bool:
    """Whether a text soon says in some language that its author is sorry, and then that they cannot."""
    hints = _REGRET_HINTS_IN_ASCII if start.isascii() else _REGRET_HINTS
    return _any_in(hints, start[:60].lower()) and bool(_WITH_REGRET.search(start))


def _any_in(hints: Iterable[str], text: str) -> bool:
    return any(hint in text for hint in hints)
