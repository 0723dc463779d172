"""The audit's page in a real browser, where one is installed: Chromium, driven by its own command line."""

import json
import re
import shutil
import struct
import subprocess
import zlib
from html import escape, unescape
from pathlib import Path

import pytest

from tests.tools.auditing import EXTRA, HOSTILE, NET, make_audited, page
from tests.tools.conftest import FILES, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

# Opens every section by its summary, as a reader does, and leaves what it finds in the document around its frame.
PROBE = """
<script>
addEventListener("load", function () {
  var found = {sections: {}, links: [], closed: document.querySelectorAll("details:not([open])").length};
  document.querySelectorAll("details").forEach(function (details) { details.firstElementChild.click(); });
  document.querySelectorAll("section.file").forEach(function (section) {
    var heights = Array.from(section.querySelectorAll("details"), function (details) {
      return details.open ? details.offsetHeight - details.firstElementChild.offsetHeight : 0;
    });
    found.sections[section.id] = heights;
  });
  found.width = [document.documentElement.scrollWidth, innerWidth];
  found.back = getComputedStyle(document.body).backgroundColor;
  document.querySelectorAll("details").forEach(function (details) { details.open = false; });
  document.querySelectorAll('main table.matrix a[href^="#"]').forEach(function (link) {
    location.hash = link.hash;
    dispatchEvent(new Event("hashchange"));
    var target = document.getElementById(link.hash.slice(1));
    found.links.push([link.hash, target.tagName, target.open === undefined || target.open]);
  });
  document.getElementById("close").click();
  found.left = document.querySelectorAll("details.view[open]").length;
  document.getElementById("open").click();
  found.all = document.querySelectorAll("details.view:not([open])").length;
  parent.document.documentElement.dataset.found = JSON.stringify(found);
});
</script>
"""


def chromium(where: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """One run; its console is on standard error."""
    assert CHROMIUM
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--hide-scrollbars"]
    profile = f"--user-data-dir={where / 'profile'}"
    return subprocess.run(
        [CHROMIUM, *fixed, profile, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def console(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def pixels(png: bytes) -> set[bytes]:
    """The distinct rows of a screenshot, as PNG has them before its filters are undone."""
    width, height = struct.unpack(">II", png[16:24])
    chunks, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            chunks += png[at + 8 : at + 8 + size]
        at += size + 12
    raw = zlib.decompress(chunks)
    stride = len(raw) // height
    assert stride >= width
    return {raw[row * stride : (row + 1) * stride] for row in range(height)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a checkout with hostile text, a long line and all other kinds of difference."""
    where = tmp_path_factory.mktemp("page")
    write(where / "checkout", {**FILES, NET: HOSTILE, EXTRA: b"x = '" + b"wide" * 200 + b"'\n"})
    project = make_audited(where)
    path = where / "index.html"
    path.write_text(page(project, "--tree", where / "checkout"), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (390, False), (390, True)], ids=["desk", "phone", "dark phone"]
)
def test_every_section_opens_and_nothing_is_said_on_the_console(built: Path, width: int, dark: bool) -> None:
    text = built.read_text(encoding="utf-8")
    # The page's own policy admits its one script; the probe comes without it.
    probed = re.sub(r"<meta http-equiv=[^>]+>", "", text).replace("</body>", f"{PROBE}</body>")
    assert probed.count("<script>") == 2
    path = built.with_name("probed.html")
    # In a frame, because no window is as narrow as a phone.
    style = f"width: {width}px; height: 800px; border: 0"
    path.write_text(f'<!doctype html><iframe style="{style}" srcdoc="{escape(probed)}"></iframe>', encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = chromium(built.parent, scheme, "--dump-dom", path.as_uri())
    assert console(done) == []
    match = re.search(r'data-found="([^"]+)"', done.stdout)
    assert match, done.stderr
    found = json.loads(unescape(match[1]))
    assert set(found["sections"]) == {path.replace("/", "-") for path in FILES}
    assert sum(map(len, found["sections"].values())) == found["closed"] > 8
    assert all(height > 0 for heights in found["sections"].values() for height in heights)
    assert found["width"][0] <= found["width"][1] == width
    assert (found["left"], found["all"]) == (0, 0)
    assert len(found["links"]) > 8
    assert all(opened for _, _, opened in found["links"]), found["links"]
    assert (found["back"] == "rgb(255, 255, 255)") != dark


def test_the_page_as_it_is_loads_under_its_own_policy(built: Path) -> None:
    # Its script ran: the buttons show, and the fragment opened every comparison.
    done = chromium(built.parent, "--dump-dom", f"{built.as_uri()}#all")
    assert console(done) == []
    assert '<p class="buttons">' in done.stdout
    views = re.findall(r'<details class="view"[^>]*>', done.stdout)
    assert len(views) > 5
    assert all(view.endswith('open="">') for view in views)


def test_another_script_does_not_run_under_that_policy(built: Path) -> None:
    path = built.with_name("attacked.html")
    text = built.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8")
    done = chromium(built.parent, "--dump-dom", path.as_uri())
    assert "<title>taken" not in done.stdout
    # And this is how an error on the console would be seen.
    assert "Content Security Policy" in " ".join(console(done))


@pytest.mark.parametrize("size", ["1280,900", "390,844"], ids=["desk", "phone"])
def test_a_screenshot_is_not_blank(built: Path, size: str, tmp_path: Path) -> None:
    (tmp_path / "blank.html").write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    seen = {}
    for name, address in (("page", built), ("blank", tmp_path / "blank.html")):
        shot = tmp_path / f"{name}.png"
        chromium(tmp_path, f"--window-size={size}", f"--screenshot={shot}", address.as_uri())
        seen[name] = len(pixels(shot.read_bytes()))
    assert seen["blank"] <= 3
    assert seen["page"] > 100
