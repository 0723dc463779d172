"""A moment of what `make fuzz` does at length."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.conftest import Project
from tests.tools.hostile.fuzz import Reader, Tally, attempt, readers, try_many, untouched
from tools.errors import UsageError
from tools.git import Scratch

NAMES = ["patch", "lock", "manifest", "wheel", "rebase state", "journal", "vendor with a bent patch",
         "vendor with a bent lock", "vendor with a bent manifest"]  # fmt: skip


@pytest.fixture(scope="module")
def where(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(template.root, folder / "project")
    shutil.copytree(template.store, folder / "store")
    (folder / "canary").write_bytes(b"to be left alone\n")
    return folder


@pytest.fixture(scope="module")
def project(where: Path, template: Project) -> Project:
    return Project(where / "project", template.upstream, template.commit, where / "store")


@pytest.fixture(scope="module")
def everyone(project: Project) -> Iterator[dict[str, Reader]]:
    with Scratch() as scratch:
        yield {reader.name: reader for reader in readers(project, scratch)}


@pytest.mark.parametrize("name", NAMES)
def test_no_bent_input_breaks_a_reader(name: str, where: Path, project: Project, everyone: dict[str, Reader]) -> None:
    tally = Tally()
    examples = 15 if name.startswith("vendor") else 100
    with untouched(where, project):
        try_many(everyone[name], examples, 1, tally)
    assert tally.tried[name] >= examples // 2


def test_every_reader_takes_what_is_whole(everyone: dict[str, Reader]) -> None:
    assert list(everyone) == NAMES
    for name, reader in everyone.items():
        tally = Tally()
        for data in reader.seeds:
            attempt(reader, data, tally)
        assert tally.admitted[name], name


def test_what_a_reader_does_wrong_is_seen(where: Path, project: Project) -> None:
    def careless(data: bytes) -> bool:
        if data.startswith(b"y"):
            raise UsageError("no")
        return bool(int(data))

    with pytest.raises(ValueError, match="invalid literal"):
        try_many(Reader("careless", [b"12", b"yes"], careless), 100, 1, Tally())
    with pytest.raises(AssertionError), untouched(where, project):
        (where / "written").touch()
    (where / "written").unlink()
