"""`vendor` end to end on a miniature upstream."""

from tests.tools.conftest import EDITED, FILES, Project


def test_vendors_every_file_patched_or_byte_identical(project: Project) -> None:
    done = project.run("vendor")
    for path, data in FILES.items():
        assert (project.tree / path).read_bytes() == EDITED.get(path, data)
    assert "5 files, 2 patched" in done.stdout
    project.run("verify")
