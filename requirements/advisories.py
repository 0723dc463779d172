"""Ask PyPI for known vulnerabilities in what requirements files pin, with pip-audit: `make advisories`.

Usage: advisories.py FILE.... Exit codes: 0 none known, 1 some are, 2 usage, 5 the service gave no answer for some. A
package that nobody could say anything of is never taken for a good one.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Answer:
    """What the service said. asked: packages. known: a line a vulnerability. unanswered: why, by package or file."""

    asked: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, output: str, complaint: str) -> None:
        """Add what pip-audit wrote, in its JSON on standard output and on standard error, of the file `name`."""
        try:
            for package in json.loads(output)["dependencies"]:
                self.asked.add(package["name"])
                if "skip_reason" in package:
                    self.unanswered[package["name"]] = package["skip_reason"]
                for found in package.get("vulns", ()):
                    mended = ", ".join(found["fix_versions"]) or "no release"
                    self.known.add(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
        except (ValueError, KeyError, TypeError):
            self.unanswered[name] = (complaint.strip() or output.strip() or "no output").splitlines()[-1]

    def lines(self) -> list[str]:
        """What to tell, worst first."""
        missing = [f"not answered: {', '.join(sorted(self.unanswered))}"] if self.unanswered else []
        return [
            *(f"known: {line}" for line in sorted(self.known)),
            *missing,
            *(f"  such as {name}: {self.unanswered[name]}" for name in sorted(self.unanswered)[:1]),
            f"{len(self.asked)} packages asked for, {len(self.known)} vulnerabilities known",
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
        print("next: make advisories on a machine that reaches PyPI itself, not a mirror", file=sys.stderr)
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
