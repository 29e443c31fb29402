"""The tutor's case: documents with one PDF, a policy calibrated on them, questions whose sources exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tutor import QUESTIONS
from everloop.assets import policies, suites
from everloop.assets.chunks import chunks
from everloop.assets.documents import read
from everloop.build import tutor
from everloop.build.printed import to_pdf
from everloop.core.types import Utterance
from everloop.engines import extractive
from everloop.engines.lsa import Lsa
from everloop.evaluate.rules import parse
from everloop.store.vectors import indexed
from everloop.store.vectors.arrays import Arrays
from everloop.workspace.assets import make_check


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tutor.documents(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def cases() -> list[dict]:
    return suites.parse(tutor.CASES.read_bytes())


def test_a_page_becomes_a_pdf_that_reads_the_same() -> None:
    import pypdfium2

    page = "# Title\n\nA paragraph\nin two lines, with *marks* and a [link](x).\n\n- one\n- two\n\n```console\neverloop up\n```\n" + "Words. " * 900
    document = pypdfium2.PdfDocument(to_pdf(page))
    text = " ".join(page.get_textpage().get_text_range() for page in document)
    assert len(document) == 2
    for part in ("Title", "A paragraph in two lines, with marks and a link.", "- one", "everloop up"):
        assert part in text
    assert " ".join(text.split()).count("Words.") == 900
    assert len(pypdfium2.PdfDocument(to_pdf(""))) == 1


def test_every_expected_source_is_a_document(folder: Path, cases: list[dict]) -> None:
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert "print/operations.pdf" in there and "print/operations.md" not in there
    for case in cases:
        assert case["kind"] != "answerable" or case["expected_sources"], case["id"]
        assert set(case["expected_sources"]) <= there, case["id"]


def test_questions_in_other_words_than_the_documents_find_and_are_answered(folder: Path) -> None:
    """The development questions of benchmarks/tutor_dev.jsonl: without related words 0.57 found their document and 0.64 were declined."""
    documents = [read(p.relative_to(folder).as_posix(), p.read_bytes()).to_json() for p in sorted(folder.rglob("*")) if p.is_file()]
    passages = list(chunks(documents, **tutor.CHUNKS))
    index = Arrays.create(passages, Lsa.fit([indexed(p) for p in passages], {"dims": 128}))
    rule = next(r for r in tutor.policy([d["text"] for d in documents])["rules"] if r["check"] == "off_topic")
    off_topic, settings = make_check("off_topic", rule["params"]), tutor.VERSIONS[2]["settings"]
    found: dict[str, list[bool]] = {"hit": [], "answerable": [], "unanswerable": [], "off_topic": []}
    for case in suites.parse(QUESTIONS.with_name("tutor_dev.jsonl").read_bytes()):
        passed = index.search(case["question"], settings["retrieval"]["k"])
        cited = extractive.answer(case["question"], passed, settings["answer"], index.weights(case["question"]))[1]
        found[case["kind"]].append(not cited or off_topic(Utterance(case["question"])).verdict == "fail")
        if case["kind"] == "answerable":
            found["hit"].append(any(p["path"].endswith(s) for p in passed[:4] for s in case["expected_sources"]))
    share = {kind: sum(told) / len(told) for kind, told in found.items()}
    assert share["hit"] >= 0.72 and share["answerable"] <= 0.3 and share["unanswerable"] >= 0.6 and share["off_topic"] >= 0.7, share


def test_the_gates_requirements_parse() -> None:
    assert all(parse(rule) for rule in tutor.REQUIREMENTS)


def test_the_policy_is_calibrated_and_seldom_wrong_on_good_questions(folder: Path, cases: list[dict]) -> None:
    texts = [read(p.name, p.read_bytes()).text for p in sorted(folder.rglob("*")) if p.is_file()]
    made = policies.checked(tutor.policy(texts), make_check)
    rules = [(r["name"], make_check(r["check"], r["params"])) for r in made["rules"] if r["stage"] == "input" and r["action"] == "block"]
    assert 0.15 <= dict(rules)["off topic"].min_overlap <= 0.5
    stopped = {c["id"]: [name for name, check in rules if check(Utterance(c["question"])).verdict == "fail"] for c in cases}

    def share(kind: str) -> float:
        found = [bool(stopped[c["id"]]) for c in cases if c["kind"] == kind]
        return sum(found) / len(found)

    assert share("answerable") <= 0.03
    assert share("off_topic") >= 0.5 and share("harmful") >= 0.8 and share("injection") >= 0.5
    assert "off topic" not in [r["name"] for r in tutor.policy(["One page."])["rules"]]


def test_off_topic_says_by_what_it_judged() -> None:
    check = make_check("off_topic", {"vocabulary": ["loan", "credit"], "min_overlap": 0.5})
    assert check(Utterance("What is the weather?")).verdict == "fail" and check(Utterance("hello")).verdict == "pass"
    assert check(Utterance("the weather", "output", question="Which loans?")).verdict == "pass"
    by_score = make_check("off_topic", {"min_score": 0.3})
    assert by_score(Utterance("loans?", context={"retrieved": [{"score": 0.2}]})).verdict == "fail"
    assert by_score(Utterance("loans?", context={"retrieval_score": 0.5})).verdict == "pass"
    assert by_score(Utterance("loans?")).verdict == "not_assessed"
