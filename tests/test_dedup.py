from teamsrl_hf.dedup import NearDuplicates

LONG = "write a short story about a lonely robot that learns to paint in the desert after the last human has left"


def test_a_light_edit_of_another_seeds_row_is_a_duplicate():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert not rows.add(LONG.upper() + "!", "s2")
    assert not rows.add(LONG + " today", "s2")


def test_a_different_instruction_is_none():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert rows.add("explain how tides arise from the pull of the moon and the sun on the oceans of the earth", "s2")


def test_rows_of_one_seed_are_not_held_against_each_other():
    rows = NearDuplicates()
    assert rows.add(LONG, "s1")
    assert rows.add(LONG + " today", "s1")


def test_what_was_refused_is_not_remembered():
    rows = NearDuplicates(threshold=0.95)
    assert rows.add("name a bird", "s1")
    assert not rows.add("name a bird", "s2")
    assert rows.add("name a bird", "s1")


def test_texts_without_words_do_not_crash():
    assert NearDuplicates().add("?!", "s1")
