"""The parts of README.md and MODEL_CHANGES.md that are computed, between markers, never typed.

A part starts with `<!-- computed: NAME -->` and ends with `<!-- end -->`, each on its own line.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools import results
from tools.apply import read_patches
from tools.errors import EXIT_CODES, UsageError
from tools.lock import IndexSpec, Lock

DOCUMENTS = ("README.md", "MODEL_CHANGES.md")
_PART = re.compile(r"(^<!-- computed: ([a-z-]+) -->\n)(.*?)(^<!-- end -->$)", re.MULTILINE | re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def parts(root: Path, lock: Lock, verbs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], str]]:
    """What each NAME stands for. verbs: (name, one line) of each command."""
    return {
        "verbs": lambda: table(("verb", "what it does"), [(f"`{name}`", text) for name, text in verbs]),
        "exit-codes": lambda: table(("code", "meaning"), list(EXIT_CODES.items())),
        "pins": lambda: table(
            ("what", "repository", "commit", "date"),
            [
                (what, pin.url, f"`{pin.commit}`", pin.date[:10])
                for what, pin in (("upstream", lock.pin), ("baseline", lock.baseline))
            ],
        ),
        "files": lambda: _files(lock),
        "patches": lambda: _patches(root, lock),
        "index": lambda: _index(lock),
        "versions": lambda: results.text(results.read(root), lock.tree_sha256, table),
    }


def render(text: str, known: Mapping[str, Callable[[], str]], name: str) -> str:
    """`text` with every computed part as it should be now.

    Raises UsageError for a part that nothing computes, or that is not ended.
    """

    def replace(match: re.Match[str]) -> str:
        if match[2] not in known:
            raise UsageError(
                f"{name} asks for a computed part {match[2]!r}", next_steps=[f"there are {', '.join(known)}"]
            )
        return match[1] + known[match[2]]() + match[4]

    if text.count("<!-- computed:") != len(_PART.findall(text)):
        raise UsageError(f"{name} has a computed part that is not ended by <!-- end --> on a line of its own")
    return _PART.sub(replace, text)


def stale(root: Path, lock: Lock, verbs: Sequence[tuple[str, str]]) -> dict[Path, str]:
    """The documents below `root` that are not as computed, with the text they should have."""
    known = parts(root, lock, verbs)
    found = {}
    for name in DOCUMENTS:
        path = root / name
        if path.exists():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(f"{name} cannot be read", [str(error)]) from error
            if (fresh := render(text, known, name)) != text:
                found[path] = fresh
    return found


def _files(lock: Lock) -> str:
    rows = []
    for file in lock.files:
        patch = lock.patch_for(file.path)
        status = f"patched: `{patch.result[:12]}`" if patch else "unchanged"
        rows.append((f"`{file.path}`", f"`{file.blob[:12]}`", status))
    return table(("file", "upstream blob", "vendored"), rows)


def _patches(root: Path, lock: Lock) -> str:
    rows = []
    patches = read_patches(root, lock)
    for locked in lock.patches:
        patch = patches[locked.target]
        lines = f"+{patch.added} -{patch.removed}"
        description = patch.header["Description"].split("\n")[0]
        rows.append((f"`{locked.file}`", len(patch.hunks), lines, f"`{locked.result_sha256[:16]}`", description))
    return table(("patch", "hunks", "lines", "result SHA-256", "description"), rows)


def _index(lock: Lock) -> str:
    rows = []
    for component in lock.components:
        for file in component.files:
            wheels = [
                wheel.requirement
                for source in lock.sources
                if isinstance(source, IndexSpec)
                for wheel in source.wheels
                if any(member.path == file.path for member in wheel.members)
            ]
            rows.append((f"`{file.path}`", ", ".join(f"`{wheel}`" for wheel in wheels) or "none"))
    return table(("pinned file", "release on the index that holds it"), rows)
