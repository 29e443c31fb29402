"""What else a question may be met by: by stem, one way, phrases too; the list is well formed."""

from __future__ import annotations

from everloop.store import synonyms
from everloop.store.words import stem


def test_words_and_phrases_are_met_by_others_one_way() -> None:
    assert stem("approve") in synonyms.phrases("Who may sign off a release?") and not synonyms.phrases("Who signs a cheque?")
    assert stem("folder") in synonyms.related(stem("directories")) and stem("backup") in synonyms.related(stem("copying"))
    assert stem("beat") not in synonyms.related(stem("exceed")) and synonyms.related("xyzzy") == ()
    assert synonyms.tells(stem("happens")) == synonyms.VAGUE < synonyms.tells(stem("folder")) == 1


def test_each_line_of_the_list_has_a_head_of_its_own_and_single_words_after_it() -> None:
    lines = [line.split() for line in synonyms.FILE.read_text().splitlines() if line and not line.startswith("#")]
    heads = [line[0] for line in lines]
    assert len(heads) == len(set(heads)) > 800
    assert [line for line in lines if len(line) < 2 or any("_" in word or word != word.lower() for word in line[1:])] == []
