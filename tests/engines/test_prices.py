"""Costs from the price table: what is known, what is not, and that the shortcut agrees with the table."""

from __future__ import annotations

import pytest

from everloop.engines.prices import cost


def test_a_known_model_costs_what_the_table_says() -> None:
    from genai_prices import Usage, calc_price

    exact = float(
        calc_price(Usage(input_tokens=1234, output_tokens=321, cache_read_tokens=200), model_ref="gpt-4o-mini", provider_id="openai").total_price
    )
    assert cost("openai", "gpt-4o-mini", 1234, 321, 200) == pytest.approx(exact)
    assert cost(None, "claude-sonnet-4-5", 500_000, 10) > cost("anthropic", "claude-sonnet-4-5", 20_000, 10) * 25


def test_an_unknown_model_has_no_price() -> None:
    assert cost("openai", "my-own-model", 10, 10) is None
