"""What killed runs leave, and who removes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.store import write_atomically

pytestmark = pytest.mark.skipif(os.name == "nt", reason="what a killed run leaves stays there")

HELD = """
import os, sys
from tools.temporary import TemporaryFolder
folder = TemporaryFolder()
open(os.path.join(folder.name, "file"), "w").close()
print(folder.name, flush=True)
sys.stdin.read()
"""


def holder(place: Path) -> "subprocess.Popen[str]":
    """A process that has a temporary folder in `place`, until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HELD],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_folder_goes_with_the_next_run_once_nobody_holds_it(tmp_path: Path) -> None:
    (tmp_path / "dsu-patches-theirs").mkdir()
    with holder(tmp_path) as killed, holder(tmp_path) as other:
        assert killed.stdout is not None
        assert other.stdout is not None
        left = Path(killed.stdout.readline().strip())
        held = Path(other.stdout.readline().strip())
        assert {path.name for path in tmp_path.iterdir()} == {left.name, held.name, "dsu-patches-theirs"}
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with holder(tmp_path) as following:
            assert following.stdout is not None
            assert Path(following.stdout.readline().strip()).is_dir()
            assert (held / "file").exists()
            assert not left.exists()
            assert following.stdin is not None
            following.stdin.close()
        assert other.stdin is not None
        other.stdin.close()
    assert [path.name for path in tmp_path.iterdir()] == ["dsu-patches-theirs"]


WRITES = """
import os, signal, sys
from pathlib import Path
os.fsync = lambda _: os.kill(os.getpid(), getattr(signal, sys.argv[2]))
from tools.store import write_atomically
write_atomically(Path(sys.argv[1]), b"half")
"""


def test_a_half_written_file_goes_with_the_next_writing_of_the_same_once_nobody_holds_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    command = [sys.executable, "-c", WRITES, str(target)]
    subprocess.run([*command, "SIGKILL"], cwd=ROOT, check=False)
    assert len(list(tmp_path.glob(".file.*.tmp"))) == 1
    with subprocess.Popen([*command, "SIGSTOP"], cwd=ROOT) as stopped:
        os.waitpid(stopped.pid, os.WUNTRACED)
        # The first of the two went when the second was made.
        [held] = tmp_path.glob(".file.*.tmp")
        write_atomically(target, b"new")
        assert held.exists()
        assert target.read_bytes() == b"new"
        stopped.send_signal(signal.SIGCONT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"half"
