"""docs/json.md names every key that `--json` writes, and no other."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, Project
from tests.tools.test_rebase import CONFLICTS, CORE, EXTRA, NET, NEW
from tools.__main__ import cli

EVERY = "Of every verb"
# Objects whose keys are names.
BY_NAME = {("status", "tree"), ("status", "patches")}


def documented() -> dict[str, set[str]]:
    """The keys under each heading of the document, by verb."""
    found: dict[str, set[str]] = defaultdict(set)
    for section in (ROOT / "docs" / "json.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        for verb in heading.split(", "):
            found[verb] |= set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    return found


def keys(verb: str, value: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all that `value` holds, as the document writes them."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from keys(verb, inner, f"{prefix}.{'*' if (verb, prefix) in BY_NAME else name}".removeprefix("."))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from keys(verb, item, f"{prefix}[]")
    else:
        yield prefix


def test_the_document_names_every_key_and_no_other(project: Project, tmp_path: Path) -> None:
    seen: dict[str, set[str]] = defaultdict(set)

    def call(*words: str | Path, code: int = 0) -> None:
        report = project.json(*words, code=code)
        seen[str(words[0])] |= set(keys(str(words[0]), report))

    call("vendor")
    call("apply", project.upstream, tmp_path / "out")
    call("verify")
    call("status")
    call("diff", "--export", tmp_path / "exported")
    call("audit", "--html", "--check")
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace('date = "2026-01-02', 'date = "2025-01-02', 1), encoding="utf-8")
    call("audit", "--check", code=1)
    project.lock.write_text(text, encoding="utf-8")
    (project.tree / EXTRA).write_bytes(b"x = 1\n")
    call("verify", code=1)
    call("audit", "--tree", project.tree)
    call("refresh", "--adopt", EXTRA, "--description", "Say why.")
    call("lock")
    call("lint")
    call("outdated")
    project.advance({CORE: b"# Scales.\n" + EDITED[CORE], NET: CONFLICTS, NEW: b"NEW = 1\n"})
    call("outdated", code=1)
    call("rebase", "main", code=3)
    call("rebase-status")
    call("rebase-continue", code=3)
    call("rebase-continue", "--drop", "net.patch", "--drop", "core.patch")
    project.advance({EXTRA: None})
    call("rebase", "main", code=3)
    call("rebase-abort")
    call("rebase-status")
    call("rebase", "main", "--drop", "extra.patch", "--allow-loss")
    call("clean")

    told = documented()
    common = told.pop(EVERY)
    assert set(seen) == set(cli.commands)
    assert {key for found in seen.values() for key in found} >= common
    # A list that happens to be empty has no items to tell of.
    for verb, found in seen.items():
        ours = {key for key in found if not any(other.startswith((f"{key}[]", f"{key}.")) for other in told[verb])}
        assert ours - common == told[verb], verb
