"""Reads the snippets of README.md, so that tests run what people paste."""

import re

from local.programs import ROOT

TEXT = (ROOT / "README.md").read_text()


def snippets(language: str, text: str = TEXT) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def snippet(word: str) -> str:
    """Return the one shell snippet with *word* in it."""
    (found,) = [block for block in snippets("sh") if word in block]
    return found
