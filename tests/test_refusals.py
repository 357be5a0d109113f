import pytest

from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.text.rules import instruction_violations, response_violations

DEEPEN = OPERATIONS[2]


@pytest.mark.parametrize(
    "answer",
    [
        "I apologize, but I cannot do that.",
        "I am so sorry, no.",
        "很抱歉，我无法回答这个问题。",
        "抱歉，我帮不了您。",
        "मुझे खेद है, मैं इस प्रश्न का उत्तर नहीं दे सकता।",
        "Lo siento, no me es posible ayudar con eso.",
        "Désolée, il m’est impossible de vous aider.",
        "أعتذر، لا يمكنني الإجابة عن هذا السؤال.",
        "দুঃখিত, আমি এর উত্তর দিতে পারব না।",
        "Infelizmente, não posso responder a essa pergunta.",
        "К сожалению, я не могу ответить на этот вопрос.",
        "معاف کیجیے، میں اس میں مدد نہیں کر سکتا۔",
        "Leider kann ich diese Frage nicht beantworten.",
        "恐れ入りますが、そのご質問にはお答えできません。",
        "죄송합니다. 그 질문에는 답변할 수 없습니다.",
        "Mi dispiace, ma non posso rispondere.",
        "Maaf, saya tidak bisa menjawab pertanyaan itu.",
        "ขออภัย ฉันไม่สามารถตอบคำถามนี้ได้",
    ],
)
def test_a_short_refusal_is_recognised_in_many_languages(answer):
    assert response_violations(answer) == ("refusal",)


@pytest.mark.parametrize(
    "answer",
    [
        "I am sorry for the late reply. The roses are out and the hens lay again.",
        "Dear Ann, I'm sorry to hear about your leg. We miss you at the choir.",
        "对不起，我昨天没有来。菜园里的黄瓜熟了。",
        "冰在这个温度下不能融化。",
        "Cher Luc, je suis désolé d'avoir oublié ton livre. Le voici.",
        "Es tut mir leid, dass ich dein Buch vergessen habe. Hier ist es.",
        "お返事が遅くなって申し訳ありません。庭の柿が実りました。",
        "Извините за опоздание! Я принёс пирог.",
        "El hielo no puede fundirse a esa temperatura.",
        "बर्फ इस तापमान पर नहीं पिघलती।",
    ],
)
def test_an_apology_for_something_and_a_denial_in_the_matter_are_no_refusals(answer):
    assert response_violations(answer) == ()


def test_a_rewriter_that_declines_in_another_language_has_not_rewritten():
    assert instruction_violations("说出一种鸟。", "对不起，我无法改写这条指令。", [], DEEPEN) == ("refusal",)
    assert instruction_violations("Nombra un ave.", "Lo siento, no puedo hacerlo.", [], DEEPEN) == ("refusal",)
    assert instruction_violations("Nombra un ave.", "No puedo dormir. Explica por qué.", [], DEEPEN) == ()
