"""The parts of the documents that are computed, between markers, never typed.

A part starts with `<!-- computed: NAME -->` and ends with `<!-- end -->`, each on its own line.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

from tools import figures, results
from tools.errors import EXIT_CODES, UsageError
from tools.lock import ABSENT, Lock, PinnedFile
from tools.patchset import Patch, held_base
from tools.pieces import members_of

# The account of each pinned file, under headings that name them.
ACCOUNT = "MODEL_CHANGES.md"
DOCUMENTS = ("README.md", ACCOUNT, "docs/reliability.md")
_PART = re.compile(r"(^<!-- computed: ([a-z-]+) -->\n)(.*?)(^<!-- end -->$)", re.MULTILINE | re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def parts(
    root: Path, lock: Lock, patches: Mapping[str, Patch], verbs: Sequence[tuple[str, str]]
) -> dict[str, Callable[[], str]]:
    """What each NAME stands for. patches: by target. verbs: (name, one line) of each command."""
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
        "baseline": lambda: _baseline(lock),
        "patches": lambda: _patches(lock, patches),
        "index": lambda: _index(lock, patches),
        "versions": lambda: results.text(results.read(root), lock.tree_sha256, table),
        "versions-table": lambda: results.summary(results.read(root), lock.tree_sha256, table),
        "figures": lambda: figures.text(figures.read(root), table),
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


def stale(root: Path, lock: Lock, patches: Mapping[str, Patch], verbs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The documents below `root` that are not as computed from the rest, by name, with the text they should have."""
    known = parts(root, lock, patches, verbs)
    found = {}
    for name in DOCUMENTS:
        path = root / name
        if path.exists():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(f"{name} cannot be read", [str(error)]) from error
            if (fresh := render(text, known, name)) != text:
                found[name] = fresh
    return found


def differing(text: str, fresh: str) -> list[tuple[int, str, str]]:
    """(line number, line as it is, line as it should be) for each line of `text` that is not as in `fresh`."""
    old, new = text.splitlines(), fresh.splitlines()
    found = []
    for kind, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            pairs = zip_longest(old[start:end], new[first:last], fillvalue="")
            found += [(start + 1 + offset, was, should) for offset, (was, should) in enumerate(pairs)]
    return found


def _files(lock: Lock) -> str:
    rows = []
    for file in lock.files:
        patch = lock.patch_for(file.path)
        status = f"patched: `{patch.result[:12]}`" if patch else "unchanged"
        rows.append((f"`{file.path}`", f"`{file.blob[:12]}`", status, _of_baseline(file)))
    return table(("file", "upstream blob", "vendored", "baseline"), rows)


def _of_baseline(file: PinnedFile) -> str:
    words = {file.blob: "agrees", ABSENT: "absent", "": "not recorded"}
    return words.get(file.baseline) or f"differs: `{file.baseline[:12]}`"


def _baseline(lock: Lock) -> str:
    """What the baseline comparison finds, as sentences with the names."""
    differs = [file for file in lock.files if file.baseline not in (file.blob, ABSENT, "")]
    found = {
        f"The baseline `{lock.baseline.commit[:7]}` differs from upstream in": differs,
        "It differs, and is patched here, in": [file for file in differs if lock.patch_for(file.path)],
        "It lacks": [file for file in lock.files if file.baseline == ABSENT],
        "The lock does not say for": [file for file in lock.files if not file.baseline],
    }
    lines = []
    for text, files in found.items():
        if files or files is differs:
            names = ", ".join(f"`{file.path}`" for file in files)
            lines.append(f"- {text} {len(files)} of {len(lock.files)} files" + (f": {names}" if names else ""))
    return "\n".join(lines) + "\n"


def _patches(lock: Lock, patches: Mapping[str, Patch]) -> str:
    rows = []
    for locked in lock.patches:
        patch = patches[locked.target]
        lines = f"+{patch.added} -{patch.removed}"
        description = patch.header["Description"].split("\n")[0]
        rows.append((f"`{locked.file}`", len(patch.hunks), lines, f"`{locked.result_sha256[:16]}`", description))
    return table(("patch", "hunks", "lines", "result SHA-256", "description"), rows)


def _index(lock: Lock, patches: Mapping[str, Patch]) -> str:
    rows = []
    for file in lock.files:
        patch = patches.get(file.path)
        if patch and held_base(patch) is not None:
            where = f"no wheel: `{patch.name}` removes every line of it"
        elif file.pieces:
            wheels = sorted({member.partition(":")[0] for member in members_of(file.pieces)})
            where = ", ".join(f"`{wheel}`" for wheel in wheels)
        else:
            where = "none"
        rows.append((f"`{file.path}`", len(file.pieces.rpartition("|")[2].split()) or "", where))
    return table(("pinned file", "pieces", "in the wheels of"), rows)
