"""Hostile words on the command line, as a script may pass them on from somebody: UPSTREAM=, URL=, TO= and BASELINE=."""

import re
from collections.abc import Iterator

from tests.tools.hostile.cases import ADDRESSES, Case

# Each verb that takes another address.
CALLS = {
    "vendor --upstream": ("vendor", "--dest", "{canary}/tree", "--upstream={address}"),
    "diff --upstream": ("diff", "--upstream={address}"),
    "lock --upstream": ("lock", "--upstream={address}"),
    "outdated --upstream": ("outdated", "--upstream={address}"),
    "rebase --upstream": ("rebase", "--upstream={address}", "main"),
    "rebase --url": ("rebase", "--url={address}", "main"),
}
# Names that are given to git, or look as if they could be.
NAMES = (
    "--upload-pack=touch {canary}",
    "-utouch {canary}",
    "--",
    "-",
    "../main",
    "a..b",
    "refs/../../x",
    "ext::touch {canary}",
    "main:{canary}",
    "+main",
    "main~1",
    "main^{/x}",
    "@{-1}",
    "$(touch {canary})",
    "`touch {canary}`",
    "main;touch {canary}",
    "main\n--upload-pack=touch {canary}",
    "main\x1b[2J",
    "main main",
    "*",
    "\u202eniam",
    "",
)


def cases() -> Iterator[Case]:
    for name, words in CALLS.items():
        for address, why in ADDRESSES.items():
            call = tuple(word.replace("{address}", address) for word in words)
            yield Case("address", f"{name} {address!r}", (f"{re.escape(why)}, so git is not given it",), call=call)
    for to in NAMES:
        yield Case("name", f"TO {to!r}", ("is no name of a branch, tag or commit",), call=("rebase", "--", to))
