"""Asks PyPI for known vulnerabilities of pinned packages, with pip-audit: `make advisories`.

Usage: advisories.py FILE.... Exit codes: 0 none known, 1 some known, 2 usage, 5 no answer for some packages.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Answer:
    """The answers. asked: packages. known: a line for each vulnerability. unanswered: reasons, by package or file."""

    asked: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, output: str, complaint: str) -> None:
        """Add what pip-audit wrote for the file `name`: JSON to standard output, and standard error."""
        try:
            for package in json.loads(output)["dependencies"]:
                self.asked.add(package["name"])
                if "skip_reason" in package:
                    self.unanswered[package["name"]] = package["skip_reason"]
                for found in package.get("vulns", ()):
                    fixed = ", ".join(found["fix_versions"]) or "no release"
                    self.known.add(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
        except (ValueError, KeyError, TypeError):
            self.unanswered[name] = (complaint.strip() or output.strip() or "no output").splitlines()[-1]

    def lines(self) -> list[str]:
        """The report, worst first."""
        missing = [f"not answered: {', '.join(sorted(self.unanswered))}"] if self.unanswered else []
        return [
            *(f"known: {line}" for line in sorted(self.known)),
            *missing,
            *(f"  such as {name}: {self.unanswered[name]}" for name in sorted(self.unanswered)[:1]),
            f"{len(self.asked)} packages, {len(self.known)} known vulnerabilities",
        ]

    @property
    def exit_code(self) -> int:
        return 1 if self.known else 5 if self.unanswered else 0


def main(files: Sequence[str]) -> int:
    if not files:
        print("error: which requirements files?\nnext: make advisories", file=sys.stderr)
        return 2
    answer = Answer()
    for name in files:
        options = ["--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json", f"--requirement={name}"]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        answer.take(name, done.stdout, done.stderr)
    print("\n".join(answer.lines()), file=sys.stderr if answer.exit_code else sys.stdout)
    if answer.unanswered:
        print("next: make advisories  # where PyPI itself can be reached, not a mirror", file=sys.stderr)
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
