"""Whether a folder's weights are quantised, and how, as its ``config.json`` says."""

from collections.abc import Mapping
from typing import Any

KEYS = ("quantization_config", "compression_config")


def find_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a quantisation, also of the language model inside another one; empty if there is none."""
    for place in (config, config.get("text_config") or {}):
        for key in KEYS:
            if place.get(key):
                found: dict[str, Any] = place[key]
                return found
    return {}


def name_quantisation(settings: Mapping[str, Any]) -> str:
    """Name the kind of a quantisation, such as ``fp8``; old settings of bitsandbytes do not name it."""
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(settings.get("quant_method") or "unnamed")


def drop_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the settings of a quantisation."""
    kept = {key: value for key, value in config.items() if key not in KEYS}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = {key: value for key, value in kept["text_config"].items() if key not in KEYS}
    return kept
