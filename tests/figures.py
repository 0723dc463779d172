"""What a stress, fuzz or other long run found, kept in `docs/figures/NAME.json` for docs/reliability.md to show.

The file says which command made it, where and when, and holds one row a figure; nobody edits it.
"""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import ROOT

FIGURES = ROOT / "docs" / "figures"
SCHEMA = 1


def record(
    name: str, *, command: str, about: str, rows: Sequence[tuple[str, int | str]], folder: Path = FIGURES
) -> Path:
    """Write `folder`/NAME.json, and return its path.

    command: what a reader types to get these figures again. about: one sentence on what was run. rows: (what was
    counted, how many or how much).
    """
    document = {
        "schema": SCHEMA,
        "command": command,
        "about": about,
        "date": datetime.now(UTC).date().isoformat(),
        "on": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        "rows": [[what, figure] for what, figure in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return path
