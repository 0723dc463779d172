"""Open, bring up to date or close the one issue that says which patches stopped applying to upstream.

Standard input: what `python -m tools outdated --json` wrote. Runs `gh`, which takes its token and repository from the
environment; with --dry-run it only prints what the issue would say. Exit codes: 0 done, 2 the input is no such report;
those of gh otherwise.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# The one open issue with this title that a workflow opened is ours: there is never a second. Anybody may open another.
TITLE = "Patches no longer apply to upstream"
MEANINGS = {
    "conflict": "conflicts with what upstream changed",
    "gone": "its file is gone upstream",
    "already upstream": "upstream has taken it over: nothing of it is left",
}


def quoted(text: str) -> str:
    """Upstream chose this text: it is to be read, not to be rendered, and to call nobody."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def text_for(report: dict[str, Any]) -> str | None:
    """What the issue has to say, or None where every patch applies or nothing is newer. Raises KeyError, TypeError."""
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
            "This text is replaced by each weekly run, and the issue closed by the first that finds nothing to decide.",
        ]
    )


def gh(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["gh", *arguments], input=stdin, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return done.stdout


def settle(text: str | None) -> str:
    """Make the issue say `text`, or be closed for None; what was done, in a few words. Raises CalledProcessError."""
    listed = json.loads(gh("issue", "list", "--state", "open", "--limit", "1000", "--json", "number,title,body,author"))
    found = (issue for issue in listed if issue["title"] == TITLE and issue["author"]["login"] == "app/github-actions")
    ours = sorted(found, key=lambda issue: issue["number"])
    if not ours:
        if text is None:
            return "nothing to tell"
        return gh("issue", "create", "--title", TITLE, "--body-file", "-", stdin=text).strip()
    number = str(ours[0]["number"])
    if text is None:
        gh("issue", "close", number, "--comment", "Every patch applies again, or the pin has moved.")
        return f"closed issue {number}"
    if ours[0]["body"].replace("\r\n", "\n").strip() == text:
        return f"issue {number} says so already"
    gh("issue", "edit", number, "--body-file", "-", stdin=text)
    return f"brought issue {number} up to date"


def main(arguments: Sequence[str]) -> int:
    try:
        text = text_for(json.load(sys.stdin))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"error: no report of `python -m tools outdated --json`: {error!r}", file=sys.stderr)
        return 2
    if "--dry-run" in arguments:
        print(text or "nothing to tell")
        return 0
    try:
        print(settle(text))
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
