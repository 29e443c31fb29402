"""Terms: Porter's published examples, names with parts, accents, stop words."""

from __future__ import annotations

import pytest

from everloop.store.words import stem, terms


@pytest.mark.parametrize(
    "pairs",
    [
        "caresses caress ponies poni ties ti caress caress cats cat",
        "feed feed agreed agre plastered plaster bled bled motoring motor sing sing conflated conflat troubled troubl sized size",
        "hopping hop tanned tan falling fall hissing hiss fizzed fizz failing fail filing file happy happi sky sky",
        "relational relat conditional condit rational ration digitizer digit radically radic vileness vile operator oper feudalism feudal",
        "triplicate triplic formative form formalize formal electrical electr hopeful hope goodness good",
        "revival reviv allowance allow inference infer adjustable adjust replacement replac adoption adopt communism commun activate activ",
        "probate probat rate rate cease ceas controll control roll roll generalizations gener oscillators oscil",
    ],
)
def test_stems_are_those_of_porters_paper(pairs: str) -> None:
    found = pairs.split()
    assert {word: stem(word) for word in found[::2]} == dict(zip(found[::2], found[1::2], strict=True))


def test_terms_of_names_accents_and_other_scripts() -> None:
    assert terms("Call step.client, max_depth and self-managed Café; don't!") == [
        *("call", "step", "client", "step.client", "max", "depth", "max_depth", "self", "manag", "cafe"),
    ]
    assert terms("Ein Überblick 日本 v1.2 x=3") == ["ein", "uberblick", "日本", "v1", "2", "v1.2", "x", "3"]
    assert terms("the of and") == [] and terms("") == []
