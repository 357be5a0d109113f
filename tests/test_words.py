import pytest

from teamsrl_hf.evolve.dedup import NearDuplicates
from teamsrl_hf.evolve.filters import Decontamination, length_limits
from teamsrl_hf.text.words import count_words, normalise, units, word_grams, words
from teamsrl_hf.types import Candidate, Review, Seed, Transition


def _candidate(text, response=""):
    step = Transition("Name a bird.", "deepen", text, Review("not_equal"), "m")
    return Candidate("r1", Seed("s1", "Name a bird."), "s1", 0, ("deepen",), step, response)


def _near_duplicates(first, second):
    rows = NearDuplicates()
    assert rows.add(first, "s1")
    return not rows.add(second, "s2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It's a well-known, state-of-the-art oven; no?", "it's a well known state of the art oven no"),
        ("**Bold** words and/or - a dash... # Heading", "bold words and or a dash heading"),
        ("Name 3 birds (of 40), 2.5 kg each!", "name 3 birds of 40 2 5 kg each"),
        ("snake_case and 'quoted' text\n===\nhere", "snake_case and quoted text here"),
    ],
)
def test_plain_text_gives_runs_of_letters_and_digits(text, found):
    assert normalise(text) == found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Write a loop in C.", "Write a loop in C#."),
        ("Write a loop in F.", "Write a loop in F#."),
        ("Open the NET console.", "Open the .NET console."),
        ("Simplify 6 * 2", "Simplify 6 / 2"),
        ("Simplify 6^2", "Simplify 6-2"),
        ("Simplify a*b", "Simplify a/b"),
        ("Take the root of 9", "Take the root of -9"),
        ("Add .5 to it", "Add 5 to it"),
        ("Is x <= 4?", "Is x >= 4?"),
        ("Is x = 4?", "Is x != 4?"),
        ("Take 10% off", "Take 10 off"),
        ("Pay 9 pesos or ₹9", "Pay 9 pesos or ₺9"),
        ("Compute 7²", "Compute 72"),
        ("What does 🍀 mean?", "What does 🌵 mean?"),
        ("Negate A ∧ B", "Negate A ∨ B"),
        ("बल क्या है", "बाल क्या है"),
        ("কাল কী", "কালি কী"),
        ("கல் என்ன", "கலி என்ன"),
    ],
)
def test_a_symbol_or_a_mark_that_changes_the_question_counts(first, second):
    assert normalise(first) != normalise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Describe a fjörd", "DESCRIBE A FJO\u0308RD"),
        ("Don’t open the owner’s box", "Don't open the owner's box"),
        ("Count １２ ｃａｔｓ", "count 12 cats"),
        ("Read pages 3–5 again", "Read pages 3-5 again"),
        ("Find the ﬁsh", "find the fish"),
        ("Die große Straße", "DIE GROSSE STRASSE"),
        ("co\u00adoperate\u200b now", "cooperate now"),
        ("I ❤\ufe0f tea", "i ❤ tea"),
        ("鳥の名前を、一つ 挙げて！", "鳥の名前を一つ挙げて"),
        ("ｶﾀｶﾅで書く", "カタカナで書く"),
        ("می‌نویسم", "مینویسم"),
        ("| a | b |\n|---|---|", "a b"),
    ],
)
def test_case_encoding_spacing_and_punctuation_do_not_count(first, second):
    assert normalise(first) == normalise(second)


def test_scripts_without_spaces_give_overlapping_characters_of_their_kind():
    assert words("用Python写诗") == ["用", "python", "写诗"]
    assert words("写一首诗") == ["写一", "一首", "首诗"]
    assert words("เขียน") == ["เขี", "ขีย", "ียน"]
    assert word_grams("写一首") == ["写一", "一首", "写一 一首"]
    assert words("하늘은 왜 파란가요") == ["하늘은", "왜", "파란가요"]


def test_passages_are_compared_by_characters_without_symbols_and_apostrophes():
    assert units(normalise("It's 5 + 4 in C++ for x_1")) == ["its", "5", "4", "in", "c", "for", "x_1"]
    assert units(normalise("写诗 €5 — l’été")) == ["写", "诗", "5", "lété"]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Name a bird - any bird.", 6, 6),
        ("Назови птицу и её песню.", 5, 5),
        ("पक्षी का नाम बताओ", 4, 4),
        ("请说出三种会游泳的鸟的名字", 7, 12),
        ("泳げる鳥の名前を三つ挙げてください", 8, 14),
        ("จงบอกชื่อนกที่ว่ายน้ำได้สามชนิด", 6, 12),
        ("សូមប្រាប់ឈ្មោះបក្សីបីប្រភេទ", 4, 12),
        ("ກະລຸນາບອກຊື່ນົກສາມຊະນິດ", 4, 12),
        ("ငှက်သုံးမျိုးကိုအမည်ပေးပါ", 4, 12),
        ("Explain 光 in English", 4, 5),
        ("", 0, 0),
    ],
)
def test_words_are_counted_in_every_script(text, least, most):
    assert least <= count_words(text) <= most


def test_limits_count_the_words_of_scripts_without_spaces():
    limits = length_limits(min_words=5, max_words=20, max_response_words=10)
    assert limits(_candidate("จงบอกชื่อนกที่ว่ายน้ำได้สามชนิด")) is None
    assert limits(_candidate("บอกชื่อนก")) == "too_short"
    assert limits(_candidate("请说出三种会游泳的鸟的名字" * 5)) == "too_many_words"
    assert limits(_candidate("请说出三种会游泳的鸟的名字", "企鹅和鸭子都会游泳" * 3)) == "answer_too_long"


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [
        (
            "请写一封信给邻居说明花园里的树为什么要在三月修剪",
            "请写一封信给邻居说明花园里的树为什么要在四月修剪",
            "比较两种煮米饭的方法并列出各自需要的时间",
        ),
        (
            "จงเขียนจดหมายถึงเพื่อนบ้านเพื่ออธิบายว่าทำไมต้องตัดแต่งกิ่งไม้ในเดือนมีนาคม",
            "จงเขียนจดหมายถึงเพื่อนบ้านเพื่ออธิบายว่าทำไมต้องตัดแต่งกิ่งไม้ในเดือนเมษายน",
            "เปรียบเทียบวิธีหุงข้าวสองวิธีและบอกเวลาที่ใช้ในแต่ละวิธี",
        ),
        (
            "សូមសរសេរសំបុត្រទៅអ្នកជិតខាងពន្យល់ពីមូលហេតុដែលត្រូវកាត់មែកឈើនៅក្នុងសួនច្បារក្នុងខែមីនា",
            "សូមសរសេរសំបុត្រទៅអ្នកជិតខាងពន្យល់ពីមូលហេតុដែលត្រូវកាត់មែកឈើនៅក្នុងសួនច្បារក្នុងខែមេសា",
            "ប្រៀបធៀបវិធីដាំបាយពីរយ៉ាងហើយប្រាប់ពេលវេលាដែលត្រូវការ",
        ),
        (
            "ຂຽນຈົດໝາຍເຖິງເພື່ອນບ້ານເພື່ອອະທິບາຍວ່າເປັນຫຍັງຕ້ອງຕັດກິ່ງໄມ້ໃນສວນໃນເດືອນມີນາ",
            "ຂຽນຈົດໝາຍເຖິງເພື່ອນບ້ານເພື່ອອະທິບາຍວ່າເປັນຫຍັງຕ້ອງຕັດກິ່ງໄມ້ໃນສວນໃນເດືອນເມສາ",
            "ປຽບທຽບວິທີຫຸງເຂົ້າສອງວິທີແລະບອກເວລາ",
        ),
    ],
)
def test_a_light_edit_is_a_near_duplicate_in_scripts_without_spaces(first, second, other):
    assert _near_duplicates(first, second)
    assert not _near_duplicates(first, other)


def test_short_words_that_differ_in_a_mark_and_symbols_alone_are_no_near_duplicates():
    assert not _near_duplicates("बल का अर्थ लिखो", "बाल का अर्थ लिखो")
    assert not _near_duplicates("🍀🍀", "≈≠")


def test_a_benchmark_is_found_in_scripts_without_spaces_and_whatever_the_apostrophe():
    chinese = "一列火车从甲城开往乙城每小时行八十公里三小时后距离乙城还有六十公里两城相距多少公里"
    thai = "รถไฟขบวนหนึ่งแล่นจากเมืองหนึ่งไปยังอีกเมืองหนึ่งด้วยความเร็วแปดสิบกิโลเมตรต่อชั่วโมงใช้เวลากี่ชั่วโมง"
    english = "How many of the farmer's hens don't lay eggs if there are ten of them in the coop?"
    clean = Decontamination({"sums": [chinese, thai, english]})
    assert clean(_candidate(f"解答下面的应用题：{chinese}？请写出过程。")) == "contaminated"
    assert clean(_candidate("请介绍一列开往乙城的火车，并说明沿途的风景。")) is None
    assert clean(_candidate(f"จงแก้โจทย์นี้ {thai}")) == "contaminated"
    assert clean(_candidate("จงเล่าเรื่องรถไฟขบวนหนึ่งที่แล่นผ่านภูเขา")) is None
    assert clean(_candidate(english.replace("'", "’"))) == "contaminated"
    assert clean(_candidate(english.replace("'", "").upper())) == "contaminated"
