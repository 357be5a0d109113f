"""Seeds in Chinese, briefly in other scripts, through the whole path: models behind a real server, rows on disk."""

import asyncio
import base64
import gzip
import json
import re
import zlib

import pytest
import yaml
from asked import read_task
from datasets import load_dataset
from endpoint_server import EndpointServer

from teamsrl_hf import OPERATIONS, Review, Sampling, ScriptedGenerator, Seed, Transition
from teamsrl_hf.cli import main
from teamsrl_hf.environment.review import novelty_reward
from teamsrl_hf.environment.rewriting import Rewrite, ask_rewrite
from teamsrl_hf.evolve.config import METHODS
from teamsrl_hf.runs import read_run
from teamsrl_hf.text.operations import select_operations
from teamsrl_hf.text.plans import pack_key, write_rows
from teamsrl_hf.text.rules import violations
from teamsrl_hf.text.words import count_words
from teamsrl_hf.types import Trajectory

SEEDS = (
    "请解释潮汐是怎样形成的。",
    "写一首关于秋天稻田的短诗。",
    "为一家新开的书店起五个名字。",
    "比较自行车和电动车在城市里的优缺点。",
    "说明怎样在家里种植西红柿。",
    "把下面的句子改写得更礼貌：\n\n你快点把文件发给我。",
    "计算下面这些数的平均值：\n\n12、18、24、30",
    "介绍一种适合初学者的乐器，并说出理由。",
    "设计一份三天的成都旅行计划。",
    "为什么猫喜欢待在高的地方？",
)
# Nearly the same as one another, though of two seeds.
TWINS = (
    "请用三句话解释为什么秋天的树叶会变成红色，并说明叶绿素在其中起的第一个作用以及天气的影响。",
    "请用三句话解释为什么秋天的树叶会变成红色，并说明叶绿素在其中起的第二个作用以及天气的影响。",
)
EXAM = "一辆货车从甲城开往乙城，每小时行驶六十千米，四小时后到达，返回时每小时行驶八十千米，返回需要几小时？"
FOREIGN = (
    "바다의 밀물과 썰물이 어떻게 생기는지 쉬운 말로 설명해 주세요.",
    "海の潮の満ち引きがどのように起こるのかを、やさしい言葉で説明してください。",
)
ADDED = {
    "add_constraints": "回答不得超过{n}个字，并且不要使用专业术语。",
    "deepen": "同时分析其中第{n}个常被忽视的原因及其后果。",
    "concretize": "请以{n}年前的一座江南小镇为例。",
    "increase_reasoning": "请先列出{n}个前提，再逐步推出结论。",
    "complicate_input": "请根据下表作答。\n\n| 项目 | 数量 |\n|---|---|\n| 甲 | {n} |\n| 乙 | 7 |",
}
RARER = ("古代水钟", "榫卯结构", "盐碱地", "皮影戏", "深海热泉", "雨水花园", "竹编工艺", "候鸟迁徙")


def changed(name, text):
    """What an operation makes of a Chinese text."""
    number = zlib.crc32(text.encode())
    if name == "breadth":
        return f"请介绍{RARER[number % 8]}与{RARER[number // 8 % 8]}各自的{number % 90 + 10}个特点，并比较它们的用途。"
    head, blank, material = text.partition("\n\n")
    if blank and name != "complicate_input":
        return f"{head.rstrip('：')}。{ADDED[name].format(n=number % 90 + 10)}{blank}{material}"
    return f"{head}{ADDED[name].format(n=number % 90 + 10)}{blank}{material}"


def carried_out(plan, text):
    for name in plan:
        text = changed(name, text)
    return text


def chinese(payload):
    """A model that knows Chinese and finds every rewrite different."""
    task = read_task(payload["messages"][-1]["content"])
    if task.kind == "review":
        return "Different"
    made = [carried_out(plan, text) for plan, text in zip(task.plans, task.texts)]
    if task.kind == "pack":
        return write_rows([(text, reply(text)) for text in made], pack_key(list(zip(task.texts, task.plans))))
    return made[0] if made else reply(task.texts[0])


def reply(text):
    return f"可以从三个方面来看：第一是环境，第二是时间，第三是方法。要点编号为{zlib.crc32(text.encode()) % 9973}。"


@pytest.fixture
def evolve(tmp_path):
    """A function that evolves seeds with the Chinese model in every role; returns exit status and folder."""

    def run(texts, *options, folder="out"):
        (tmp_path / "seeds.jsonl").write_text(
            "".join(json.dumps({"instruction": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
        )
        out = tmp_path / folder
        with EndpointServer(chinese) as server:
            spec = f"endpoint:m@{server.url}"
            words = ["--seeds", str(tmp_path / "seeds.jsonl"), "--test_size", "0", "--chooser", "uniform"]
            words += ["--expert", spec, "--reviewer", spec, "--instructor", spec, "--output_dir", str(out), *options]
            return main(["evolve", *words]), out

    return run


def summary(out):
    return read_run(out)["summary"]


def rows_of(folder):
    return [row for split in load_dataset(str(folder)).values() for row in split]


@pytest.mark.parametrize("method", METHODS)
def test_chinese_seeds_go_through_every_method(method, evolve, tmp_path):
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": EXAM}, ensure_ascii=False) + "\n", encoding="utf-8")
    options = ["--method", method, "--operations_per_episode", "1", "--operations", "deepen", "--language", "zh"]
    filters = ["--only_languages", "zh", "--decontaminate", f"{exam}:question"]
    limits = ["--min_words", "8", "--max_words", "70"]
    status, out = evolve((*SEEDS, *TWINS, EXAM, *FOREIGN), *options, *filters, *limits)
    done = summary(out)
    assert status == 0
    assert done["rejections"] == {"contaminated": 1, "near_duplicate": 1, "other_language": 2}
    texts = [changed("deepen", seed) for seed in (*SEEDS, TWINS[0])]
    pairs = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows_of(out)]
    assert sorted(pairs) == sorted((text, reply(text)) for text in texts)
    assert done["words"] == {"instruction": {"16-31": 10, "32-63": 1}, "response": {"16-31": 11}}
    card = (out / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["zh"]
    assert any(f"\n{text}\n" in card for text in texts)
    assert "Rows refused because they repeat a text of `exam.jsonl`: 1." in card


def test_the_lineage_page_holds_chinese_texts_as_they_are(evolve):
    _, out = evolve(SEEDS[:3], "--operations", "add_constraints", "--operations_per_episode", "1")
    page = (out / "report.html").read_text(encoding="utf-8")
    data = json.loads(gzip.decompress(base64.b64decode(re.search(r'id="data">([^<]*)</script>', page)[1])))
    assert set(SEEDS[:3]) | {changed("add_constraints", seed) for seed in SEEDS[:3]} <= set(data["texts"])


def test_words_of_chinese_texts_are_counted_for_limits(evolve):
    filters = ["--max_words", "30", "--min_words", "22"]
    _, out = evolve((*SEEDS, *TWINS), "--operations", "deepen", "--operations_per_episode", "1", *filters)
    assert summary(out)["rejections"] == {"too_many_words": 2, "too_short": 1}


def test_a_policy_trains_on_chinese_seeds(tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS), encoding="utf-8")
    sizes = ["--per_device_train_batch_size", "2", "--num_mini_batches", "1", "--num_ppo_epochs", "1"]
    sizes += ["--max_steps", "2", "--use_cpu", "true", "--report_to", "none", "--save_strategy", "no"]
    with EndpointServer(chinese) as server:
        models = ["--instructor", f"endpoint:m@{server.url}", "--reviewer", f"endpoint:m@{server.url}"]
        words = ["--seeds", str(seeds), "--output_dir", str(tmp_path / "policy"), "--test_size", "0.3"]
        assert main(["train-policy", *words, *models, *sizes]) == 0
    done = summary(tmp_path / "policy")
    assert done["accept_rate_uniform"] > 0.6
    assert done["reward_uniform"] > 0


def test_rules_leave_chinese_seeds_alone_and_the_run_says_that_it_made_nothing(tmp_path, capsys):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS), encoding="utf-8")
    rules = ["--expert", "rulebook", "--reviewer", "rulebook", "--chooser", "uniform"]
    assert main(["evolve", "--seeds", str(seeds), "--output_dir", str(tmp_path / "out"), *rules]) == 3
    assert "unchanged" in capsys.readouterr().err


# A seed, and what each operation makes of it: further text behind it, or for `breadth` another instruction.
MADE = {
    "zh": ("说明怎样在家里种植西红柿。", [changed(one.name, "说明怎样在家里种植西红柿。") for one in OPERATIONS]),
    "ja": (
        "家庭でトマトを育てる方法を説明してください。",
        [
            "江戸時代の水時計の仕組みを、現代の時計と比べながら説明してください。",
            "家庭でトマトを育てる方法を説明してください。専門用語を使わず、二百字以内で答えてください。",
            "家庭でトマトを育てる方法を説明してください。また、実が割れる原因とその影響も分析してください。",
            "大阪の南向きのベランダでトマトを育てる方法を説明してください。",
            "家庭でトマトを育てる方法を説明してください。まず条件を三つ挙げ、順に結論を導いてください。",
            "家庭でトマトを育てる方法を説明してください。表に従ってください。\n\n|月|作業|\n|---|---|\n| 5 | 収穫 |",
        ],
    ),
    "th": (
        "จงอธิบายวิธีปลูกมะเขือเทศที่บ้าน",
        [
            "จงเล่าว่านาฬิกาน้ำโบราณทำงานอย่างไรและใช้ที่ใดบ้าง",
            "จงอธิบายวิธีปลูกมะเขือเทศที่บ้าน โดยใช้ไม่เกินห้าประโยคและไม่ใช้ศัพท์เฉพาะ",
            "จงอธิบายวิธีปลูกมะเขือเทศที่บ้าน และวิเคราะห์สาเหตุที่ผลแตกกับผลกระทบที่ตามมา",
            "จงอธิบายวิธีปลูกมะเขือเทศบนระเบียงห้องชุดในเชียงใหม่",
            "จงอธิบายวิธีปลูกมะเขือเทศที่บ้าน โดยเริ่มจากเงื่อนไขสามข้อแล้วสรุปทีละขั้น",
            "จงอธิบายวิธีปลูกมะเขือเทศที่บ้าน ตามตารางนี้\n\n| เดือน | งาน |\n|---|---|\n| 5 | ปลูก |\n| 7 | เก็บ |",
        ],
    ),
    "hi": (
        "घर पर टमाटर उगाने का तरीका समझाइए।",
        [
            "पुराने ज़माने की जल घड़ी के काम करने का ढंग बताइए।",
            "घर पर टमाटर उगाने का तरीका समझाइए। उत्तर पाँच वाक्यों से लंबा न हो।",
            "घर पर टमाटर उगाने का तरीका समझाइए। फल फटने के कारण और उसके परिणाम भी बताइए।",
            "जयपुर की एक छोटी बालकनी में टमाटर उगाने का तरीका समझाइए।",
            "घर पर टमाटर उगाने का तरीका समझाइए। पहले तीन शर्तें लिखिए, फिर क्रम से निष्कर्ष निकालिए।",
            "घर पर टमाटर उगाने का तरीका समझाइए। इस तालिका का पालन कीजिए।\n\n| महीना | काम |\n|---|---|\n| 5 | रोपाई |",
        ],
    ),
    "ar": (
        "اشرح طريقة زراعة الطماطم في البيت.",
        [
            "صف كيف كانت الساعة المائية القديمة تعمل وأين استخدمت.",
            "اشرح طريقة زراعة الطماطم في البيت. لا تتجاوز خمس جمل.",
            "اشرح طريقة زراعة الطماطم في البيت. وحلل أسباب تشقق الثمار ونتائجه.",
            "اشرح طريقة زراعة الطماطم على شرفة صغيرة في القاهرة.",
            "اشرح طريقة زراعة الطماطم في البيت. اذكر ثلاثة شروط أولا ثم استنتج خطوة بعد خطوة.",
            "اشرح طريقة زراعة الطماطم في البيت. اتبع هذا الجدول.\n\n| شهر | عمل |\n|---|---|\n| 5 | غرس |",
        ],
    ),
}


@pytest.mark.parametrize("code", MADE)
def test_the_gate_passes_what_each_operation_makes_of_a_text_in_another_script(code):
    seed, rewrites = MADE[code]
    broken = {one.name: violations(seed, text, one) for one, text in zip(OPERATIONS, rewrites, strict=True)}
    assert broken == dict.fromkeys(broken, ())
    assert violations(seed, seed, OPERATIONS[1]) == ("unchanged",)
    assert violations(seed, f"  {seed} ", OPERATIONS[1]) == ("unchanged",)


@pytest.mark.parametrize("code", MADE)
def test_texts_in_another_script_get_no_english_edit_but_a_request_for_the_whole_in_their_language(code):
    seed, _ = MADE[code]
    asked = []

    def answer(request):
        asked.append(request.messages[-1]["content"])
        return "x"

    model = ScriptedGenerator(answer, whole=False)
    for one in OPERATIONS:
        asyncio.run(ask_rewrite(one, seed, model, "expert", Sampling()))
    assert len(asked) == 6
    assert all(f"]\n{seed}\n[end " in content and "- Keep its language" in content for content in asked)


@pytest.mark.parametrize("code", MADE)
def test_lengths_and_novelty_of_texts_in_another_script_are_sensible(code):
    seed, rewrites = MADE[code]
    assert 4 <= count_words(seed) <= 20
    constrained, deepened = rewrites[1:3]
    assert count_words(seed) < count_words(constrained) <= 3 * count_words(seed)
    steps = [Transition(seed, "deepen", text, Review("not_equal"), "m") for text in (constrained, deepened, deepened)]
    rewards = novelty_reward([Trajectory(Seed(str(i), seed), (step,)) for i, step in enumerate(steps)])
    assert min(rewards[0][0], rewards[1][0]) > 0.6
    assert rewards[2] == [pytest.approx(0.0, abs=1e-6)]


CHINESE_PROMPTS = {
    "language": "zh",
    "examples": ["面包为什么会发酵？", "写一首冬天大海的诗。"],
    "operations": {
        "add_constraints": {
            "edits": [
                {
                    "name": "reader",
                    "ask": "给回答选一位特别的读者。",
                    "frame": "请写给{edit}。",
                    "answers": ["一位老船长", "从没下过厨的学生"],
                }
            ]
        },
        "increase_reasoning": {
            "edits": [
                {
                    "name": "points",
                    "ask": "说出三个要点。",
                    "frame": "请依次考虑{edit}，然后得出结论。",
                    "form": "items",
                    "answers": ["温度、水分、时间", "画面、节奏、心情"],
                }
            ]
        },
    },
}


@pytest.mark.parametrize(
    ("operation", "said", "expected"),
    [
        ("add_constraints", "一位刚退休的邮递员。", "说出三种会迁徙的鸟。请写给一位刚退休的邮递员。"),
        ("add_constraints", "一位老船长", "copied_edit"),
        ("add_constraints", "迁徙的鸟", "vacuous_edit"),
        ("add_constraints", "……", "empty_edit"),
        ("increase_reasoning", "距离、食物、气候。", "说出三种会迁徙的鸟。请依次考虑距离、食物、气候，然后得出结论。"),
        ("increase_reasoning", "距离和食物", "malformed_edit"),
    ],
)
def test_a_set_of_prompts_in_chinese_makes_chinese_edits(operation, said, expected):
    (one,) = select_operations([operation], prompts=CHINESE_PROMPTS)
    model = ScriptedGenerator([said, said], whole=False)
    made = asyncio.run(ask_rewrite(one, "说出三种会迁徙的鸟", model, "expert", Sampling()))
    assert (made.text if isinstance(made, Rewrite) else made.review.violations[0]) == expected
