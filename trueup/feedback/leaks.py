"""Completions that give away who wrote them. They are pointed out to whoever runs a collection, never hidden: a person
who reads "as ChatGPT" judges the name and not the answer, but to leave such texts out would flatter the model."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAKERS = "OpenAI", "Anthropic", "DeepMind", "Mistral AI", "Alibaba Cloud", "DeepSeek", "Cohere", "xAI", "LMSYS"
MODELS = (
    *("ChatGPT", "GPT-3", "GPT-4", "GPT-5", "Claude", "Gemini", "Bard", "Llama", "Mistral", "Mixtral", "Qwen", "Grok"),
    *("Vicuna", "Alpaca", "Falcon", "Phi-3", "Phi-4", "Gemma", "SmolLM", "OLMo", "Pythia", "Command R", "Tongyi"),
)
PHRASES = (
    *("as an AI language model", "as a large language model", "as an AI assistant", "as an AI model"),
    *("I am an AI", "I'm an AI", "my training data", "my knowledge cutoff", "I was trained by", "I was created by"),
)


class LeakFinder:
    """Finds the words of the list above and the names of a collection's own models, as whole words in any case."""

    def __init__(self, own: Iterable[str] = ()) -> None:
        words = [*MAKERS, *MODELS, *PHRASES, *filter(None, own)]
        longest_first = sorted(set(words), key=lambda word: (-len(word), word))
        self._pattern = re.compile(
            r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?:(?<=\d)|(?![^\W\d_]))", re.IGNORECASE
        )  # more may follow a digit, or a digit: GPT-4o is a GPT-4 and Llama3 a Llama

    def __call__(self, text: str) -> list[str]:
        """What was found, once each, in the order in which it comes."""
        return list(dict.fromkeys(text[start:end].lower() for start, end in self.places(text)))

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where it stands, as (start, end)."""
        return [found.span(1) for found in self._pattern.finditer(text)]
