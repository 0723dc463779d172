"""Tests that docs/json.md lists exactly the keys that the verbs report."""

import re
from collections.abc import Iterator
from typing import Any

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, NET, Project


def keys(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys(inner, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            yield from keys(inner, f"{at}[]")
    else:
        yield at


def test_docs_json_lists_exactly_the_reported_keys(project: Project) -> None:
    project.decide(extras={"round": ["net.patch"]})
    project.run("vendor")
    reports = {"status": [project.json("status")], "verify": [project.json("verify")]}
    (project.tree / NET).unlink()
    reports["verify"].append(project.json("verify", code=1))
    reports["audit"] = [project.json("audit")]
    project.advance({NET: EDITED[NET], "models/beta/new.py": b""})
    reports["outdated"] = [project.json("outdated", code=1)]
    project.alone()
    reports["audit"].append(project.json("audit", "--check", code=5))
    document = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    told = {part.split("\n")[0]: re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE) for part in document.split("\n## ")}
    for verb, found in reports.items():
        # A name of a file or a component may have dots in it.
        shapes = [re.escape(key).replace(r"\*", "[^[]+") for key in told[verb]]
        reported = {key for report in found for key in keys(report)} - {*told["Every verb"]}
        # An empty list, or none at all, where objects are told of.
        empty = {key for key in reported if any(shape.startswith((f"{key}\\[", f"{key}\\.")) for shape in shapes)}
        assert [key for key in reported - empty if not any(re.fullmatch(shape, key) for shape in shapes)] == [], verb
        assert [shape for shape in shapes if not any(re.fullmatch(shape, key) for key in reported)] == [], verb
