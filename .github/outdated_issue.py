"""Opens, updates or closes the issue that says which patches no longer apply to upstream.

Reads the report of `python -m tools outdated --json` from standard input, and runs `gh`, which takes its token and
repository from the environment. --dry-run only prints the issue. Exit codes: 0 done, 2 no such report, else gh's.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Our issue has this title and was opened by a workflow; anybody may open another with this title.
TITLE = "Patches no longer apply to upstream"
MEANINGS = {
    "conflict": "conflicts with what upstream changed",
    "gone": "its file is gone upstream",
    "already upstream": "upstream has this change now",
}


def quoted(text: str) -> str:
    """`text` as code: upstream's text must not be rendered, or mention people."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def text_for(report: dict[str, Any]) -> str | None:
    """The text of the issue; None where every patch applies or upstream has nothing new. Raises KeyError, TypeError."""
    patched = {patch["target"] for patch in report["patches"]}
    lines = []
    for patch in report["patches"]:
        if meaning := MEANINGS.get(patch["outcome"]):
            lines.append(f"- {quoted(patch['file'])}: {meaning} ({quoted(patch['target'])})")
        elif patch["lost"]:
            lines.append(f"- {quoted(patch['file'])}: merges, and loses {len(patch['lost'])} of the lines that it adds")
    for file in report["files"]:
        if file["outcome"] == "gone" and file["path"] not in patched:
            lines.append(f"- {quoted(file['path'])}: a pinned file that is gone upstream")
    if report["current"] or not lines:
        return None
    pin, newest = report["pin"], report["newest"]
    branch, tip = quoted(newest["branch"]), quoted(newest["commit"][:12])
    between = "" if report["commits"] is None else f", {len(report['commits'])} commits on"
    return "\n".join(
        [
            f"The pin is {quoted(pin['commit'][:12])} of {pin['date'][:10]}; upstream's {branch} is at {tip} of "
            f"{newest['date'][:10]}{between}.",
            "",
            *lines,
            "",
            f"`make rebase TO={newest['commit']} DRY_RUN=1` shows what there is to decide, and writes nothing.",
            "Each weekly run updates this text, and closes the issue when nothing is left to decide.",
        ]
    )


def gh(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["gh", *arguments], input=stdin, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return done.stdout


def settle(text: str | None) -> str:
    """Give the issue this text, or close it for None; says what was done. Raises CalledProcessError."""
    listed = json.loads(gh("issue", "list", "--state", "open", "--limit", "1000", "--json", "number,title,body,author"))
    found = (issue for issue in listed if issue["title"] == TITLE and issue["author"]["login"] == "app/github-actions")
    ours = sorted(found, key=lambda issue: issue["number"])
    if not ours:
        if text is None:
            return "nothing to report"
        return gh("issue", "create", "--title", TITLE, "--body-file", "-", stdin=text).strip()
    number = str(ours[0]["number"])
    if text is None:
        gh("issue", "close", number, "--comment", "Every patch applies again, or the pin has moved.")
        return f"closed issue {number}"
    if ours[0]["body"].replace("\r\n", "\n").strip() == text:
        return f"issue {number} is up to date"
    gh("issue", "edit", number, "--body-file", "-", stdin=text)
    return f"updated issue {number}"


def main(arguments: Sequence[str]) -> int:
    try:
        text = text_for(json.load(sys.stdin))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"error: standard input is no report of `python -m tools outdated --json`: {error!r}", file=sys.stderr)
        return 2
    if "--dry-run" in arguments:
        print(text or "nothing to report")
        return 0
    try:
        print(settle(text))
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
