"""Sections that measuring adds to a card: in their place, once, and of these weights only."""

import pytest
import yaml

from teamsrl_hf.publish.card_sections import write_section


def test_a_sections_place_in_a_card_is_kept(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n\n# Model\n")
    first = "## Privacy audit\n\nNo attack told them."
    write_section(card, "privacy audit", first, "abc")
    card.write_text(card.read_text() + "\n## Later\n")
    write_section(card, "privacy audit", first.replace("## Privacy audit", "## Privacy audit, again"), "abc")
    text = card.read_text()
    assert text.startswith("---\nlicense: mit\n---\n\n# Model\n\n<!--")
    assert text.count("## Privacy audit") == 1
    assert text.index("## Privacy audit, again") < text.index("## Later")


@pytest.mark.parametrize(
    "old",
    [
        "<!-- privacy audit: written by teamsrl audit -->\n## Privacy audit\n\nOld.\n<!-- end of privacy audit -->\n",
        # Its end is lost.
        "<!-- privacy audit of weights abc: written by teamsrl audit -->\n## Privacy audit\n\nOld.\n\n",
        "<!-- privacy audit of weights abc: written by teamsrl audit -->\nOld.\n<!-- end of privacy audit -->\n" * 2,
    ],
)
def test_what_was_measured_on_other_weights_leaves_the_card_and_the_rest_stays(old, tmp_path):
    card = tmp_path / "README.md"
    results = {"model-index": [{"name": "m", "results": []}]}
    marks = "<!-- benchmarks of weights abc: written by teamsrl eval -->", "<!-- end of benchmarks -->"
    benchmarks = f"{marks[0]}\n## Benchmarks\n\nOld.\n{marks[1]}\n"
    card.write_text(
        f"---\nlicense: mit\n{yaml.safe_dump(results)}---\n\n# Model\n\n{old}{benchmarks}## Later\n\nKept.\n"
    )
    write_section(card, "privacy audit", "## Privacy audit\n\nNew.", "def")
    expected = "---\nlicense: mit\n---\n\n# Model\n\n## Later\n\nKept.\n\n"
    expected += "<!-- privacy audit of weights def: written by teamsrl audit -->\n## Privacy audit\n\nNew.\n"
    assert card.read_text() == expected + "<!-- end of privacy audit -->\n"
