"""Reads the snippets of the documents, so that tests run what people paste."""

import re
from collections.abc import Callable
from typing import Any

from local.programs import ROOT

TEXT = (ROOT / "README.md").read_text()
EMBEDDING = (ROOT / "docs" / "celery-project.md").read_text()
CALLBACKS = (ROOT / "docs" / "callbacks.md").read_text()


def snippets(language: str, text: str = TEXT) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def snippet(word: str) -> str:
    """Return the one shell snippet with *word* in it."""
    (found,) = [block for block in snippets("sh") if word in block]
    return found


def documented_check() -> Callable[..., bool]:
    """Return what receivers of callbacks are told to check them with."""
    (block,) = snippets("python", CALLBACKS)
    names: dict[str, Any] = {}
    exec(compile(block, "callbacks.md", "exec"), names)  # noqa: S102 - our own words
    found: Callable[..., bool] = names["is_from_fairq"]
    return found


def grants(role: str) -> list[str]:
    """Return what the role of a program has to be granted that submits in its own transactions."""
    (block,) = snippets("sql", EMBEDDING)
    return [one for one in block.replace("shop_role", role).split(";") if one.strip()]
