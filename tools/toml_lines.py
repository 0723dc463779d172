"""Which line of a TOML text a key stands on, which `tomllib` does not keep."""

import re
from collections.abc import Sequence


class TomlLines:
    """Line numbers of tables, keys and array items, which `tomllib` does not keep. `text` has to be TOML.

    Each is known by its path with array positions, as ("sources", 2, "wheels", 0, "name").
    """

    _TOKEN = re.compile(
        r'''"""(?:\\.|[^\\])*?"""(?!")|"(?:\\.|[^"\\])*"|'''
        r"""'''.*?'''(?!')|'[^']*'|#[^\n]*|[\[\]{}=,.\n]|[^\s\[\]{}=,.#"']+""",
        re.DOTALL,
    )

    def __init__(self, text: str) -> None:
        self._at: dict[tuple[str | int, ...], int] = {}
        # The next token comes last.
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in self._TOKEN.finditer(text):
            if not match[0].startswith("#"):
                self._tokens.append((match[0], line))
            line += match[0].count("\n")
        self._tokens.append(("\n", line))
        self._tokens.reverse()
        last: dict[tuple[str | int, ...], int] = {}
        here: tuple[str | int, ...] = ()
        while self._tokens:
            line = self._tokens[-1][1]
            if self._take("\n"):
                continue
            if not self._take("["):
                self._pair(here)
                continue
            array = self._take("[")
            here = ()
            for name in self._names("]"):
                self._note(here, line)
                if here in last:
                    here = (*here, last[here])
                here = (*here, name)
            self._note(here, line)
            if array:
                last[here] = last.get(here, -1) + 1
                here = (*here, last[here])
                self._note(here, line)
            self._take("]")

    def _take(self, token: str) -> bool:
        """Whether the next token is `token`; then it is used up."""
        if self._tokens and self._tokens[-1][0] == token:
            self._tokens.pop()
            return True
        return False

    def _names(self, end: str) -> list[str]:
        """The parts of a dotted key, up to and with the token `end`."""
        names = []
        while not self._take(end):
            name = self._tokens.pop()[0]
            if name != ".":
                names.append(name.strip("\"'"))
        return names

    def _pair(self, here: tuple[str | int, ...]) -> None:
        line = self._tokens[-1][1]
        for name in self._names("="):
            here = (*here, name)
            self._note(here, line)
        self._value(here)

    def _value(self, here: tuple[str | int, ...]) -> None:
        position = 0
        if self._take("{"):
            while not self._take("}"):
                if not (self._take(",") or self._take("\n")):
                    self._pair(here)
        elif self._take("["):
            while not self._take("]"):
                if not (self._take(",") or self._take("\n")):
                    self._note((*here, position), self._tokens[-1][1])
                    self._value((*here, position))
                    position += 1
        else:
            while self._tokens[-1][0] not in ("\n", ",", "]", "}"):
                self._tokens.pop()

    def _note(self, path: tuple[str | int, ...], line: int) -> None:
        self._at.setdefault(path, line)

    def find(self, path: Sequence[str | int]) -> int:
        """The line of `path`, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if found := self._at.get(tuple(path[:length])):
                return found
        return 1
