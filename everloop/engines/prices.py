"""What tokens cost, from the `genai-prices` table that comes with the package (no network)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

PROVIDERS = {
    "azure.ai.openai": "azure",
    "az.ai.openai": "azure",
    "azure_openai": "azure",
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
}
"""Names of providers in traces that differ from those of the price table."""
LINEAR_TOKENS = 30_000
"""Below this many input tokens no model's price depends on how many there are."""
_UNIT = 1000


def cost(provider: str | None, model: str, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> float | None:
    """US dollars for a call; `tokens_in` includes the `tokens_cached` read from the provider's cache. None where no price is known."""
    tariff = _tariff(provider, model)
    if tariff is None:
        return None
    cached = min(max(tokens_cached, 0), tokens_in)
    if tokens_in >= LINEAR_TOKENS:
        return _price(provider, model, tokens_in, tokens_out, cached)
    per_in, per_out, per_cached = tariff
    return per_in * (tokens_in - cached) + per_cached * cached + per_out * tokens_out


@lru_cache(4096)
def _tariff(provider: str | None, model: str) -> tuple[float, float, float] | None:
    """Dollars per token of input, output and cached input; None where the model is not in the table."""
    prices = [_price(provider, model, *tokens) for tokens in ((_UNIT, 0, 0), (0, _UNIT, 0), (_UNIT, 0, _UNIT))]
    if prices[0] is None or prices[1] is None:
        return None
    cached = prices[2] if prices[2] is not None else prices[0]
    return prices[0] / _UNIT, prices[1] / _UNIT, cached / _UNIT


def _price(provider: str | None, model: str, tokens_in: int, tokens_out: int, cached: int) -> float | None:
    from genai_prices import Usage, calc_price

    usage: Any = Usage(input_tokens=tokens_in, output_tokens=tokens_out, cache_read_tokens=cached)
    name = PROVIDERS.get(provider.lower(), provider.lower()) if provider else None
    for provider_id in dict.fromkeys((name, None)):
        try:
            return float(calc_price(usage, model_ref=model, provider_id=provider_id).total_price)
        except (LookupError, ValueError):
            continue
    return None
