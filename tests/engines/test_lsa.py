"""LSA: deterministic, saved without pickle, near for what is alike though no word is shared."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from everloop.core.errors import BadInput, Corrupt, NotFound
from everloop.engines.base import embedders
from everloop.engines.lsa import Lsa

TEXTS = [
    *["The doctor treats a patient in the hospital.", "A physician treats a patient in a clinic.", "The hospital and the clinic have a ward."],
    *["The engine of the car needs oil.", "A motor of a vehicle needs oil and fuel.", "The car is a vehicle with an engine."],
]


def test_vectors_are_unit_rows_the_same_each_time_and_near_for_what_is_alike() -> None:
    made = Lsa.fit(TEXTS, {"dims": 3})
    vectors = made.embed(TEXTS)
    assert vectors.shape == (6, made.dims) and vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors, Lsa.fit(TEXTS, {"dims": 3}).embed(TEXTS)) and 0 < made.explained <= 1
    doctor, physician, motor = made.embed(["doctor", "physician", "motor"])
    assert doctor @ physician > 0.8 > 0.2 > doctor @ motor
    assert not made.embed(["xyzzy"]).any()
    assert made.asked("bike") @ motor == 0 < made.asked("automobile vehicle") @ motor
    length = lambda text: float(np.linalg.norm(made.asked(text)))
    assert 1 >= length("doctor hospital") > length("doctor hospital xyzzy") > 0 == length("xyzzy")


def test_saved_and_loaded_it_embeds_the_same_and_holds_no_pickle() -> None:
    made = Lsa.fit(TEXTS, {"dims": 4, "seed": 7})
    data = made.save()
    back = embedders.get("lsa").load({"name": "lsa", "file": "f"}, {"f": data}.__getitem__)
    assert np.array_equal(back.embed(TEXTS), made.embed(TEXTS)) and back.explained == made.explained
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)
    with pytest.raises(Corrupt, match="Build the index again"):
        Lsa.load({"file": "f"}, lambda _: data[: len(data) // 2])


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(BadInput, match="no words"):
        Lsa.fit(["", "of the"], {})
    with pytest.raises(BadInput, match="0 dimensions"):
        Lsa.fit(TEXTS, {"dims": 0})
    with pytest.raises(NotFound, match="no embedder called 'nope'"):
        embedders.get("nope")
    assert Lsa.fit(["one single text"], {}).dims == 1
