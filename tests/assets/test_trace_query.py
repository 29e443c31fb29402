"""The filter line of traces: what is read, and that an error knows its place."""

from __future__ import annotations

import pytest

from everloop.assets.trace_query import Clause, parse, quoted, term
from everloop.core.errors import BadInput


def test_a_line_is_read_term_by_term() -> None:
    read = parse('endpoint:tutor status:error,blocked ms>2s score.thumbs<0 -user:42 user!="ana b" wine "free text" -rude')
    assert read.clauses == (
        Clause("endpoint", "", ":", ("tutor",)),
        Clause("status", "", ":", ("error", "blocked")),
        Clause("ms", "", ">", (2000.0,)),
        Clause("score", "thumbs", "<", (0.0,)),
        Clause("user", "", ":", ("42",), True),
        Clause("user", "", ":", ("ana b",), True),
    )
    assert read.text == 'wine "free text"' and read.without == ("rude",)
    assert parse("release:release:tutor@3").clauses[0].values == ("release:tutor@3",)
    assert parse("").clauses == () and parse(None).text == ""


@pytest.mark.parametrize(
    "line, part, said",
    [
        ("status:ok colour:red", "colour", "no field 'colour'"),
        ("ms>fast", "fast", "no number"),
        ('user:"ana', '"ana', "not closed"),
        ("user>3", ">", "no order"),
        ("status:odd", "odd", "no status"),
        ("a score>1", "score", "a name after a dot"),
        ("user: ana", "user:", "no value"),
    ],
)
def test_an_error_knows_its_place(line: str, part: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(line)
    assert said in str(caught.value) and line[caught.value.details["start"] : caught.value.details["end"]] == part


def test_a_value_that_is_quoted_is_read_back() -> None:
    for value in ("tutor", "ana b", "a,b", "-x", "http://x"):
        assert parse(term("user", value)).clauses == (Clause("user", "", ":", (value,)),)
    assert quoted("") == '""'
