"""What MODEL_CHANGES.md says of the baseline, on the real repositories: what it had changed, and to what effect."""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.models.conftest import Trees, imports_from
from tests.models.test_whole_models import EXPERIMENTAL, MODELS, Model, audio, make, train
from tools.audit import Sides, Wanted, audit, gather_sides, unknown
from tools.lock import load
from tools.progress import Progress
from tools.store import Store, default_root

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
CHANGED = {
    "bs_roformer": MODELS["BSRoformer"],
    "bs_conformer": MODELS["BSConformer"],
    "mel_band_roformer": MODELS["MelBandRoformer"],
    "mel_band_conformer": MODELS["MelBandConformer"],
    "bs_roformer_experimental": EXPERIMENTAL["BSRoformer"],
}


@pytest.fixture(scope="module")
def sides(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    trees.need(*(file.path for file in load(ROOT).files))
    progress = Progress(quiet=True)
    nowhere = tmp_path_factory.mktemp("nothing vendored")
    found = gather_sides(ROOT, load(ROOT), Wanted(nowhere), Store(default_root(), progress.warn), progress)
    if why := unknown(audit(load(ROOT), found)):
        if os.environ.get("REQUIRE_UPSTREAM") == "1":
            pytest.fail("; ".join(why))
        pytest.skip("; ".join(why))
    return found


@pytest.fixture(scope="module")
def baseline(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline's files."""
    top = tmp_path_factory.mktemp("baseline")
    for path, side in sides.by_name["baseline"].items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(side.data or b"")
    return top


def both(trees: Trees, baseline: Path, model: Model, **changes: Any) -> list[Any]:
    found = []
    for tree in (trees.upstream, baseline):
        with imports_from(tree):
            module = importlib.import_module(f"models.bs_roformer.{model.file}")
            found.append(make(getattr(module, model.name), model, **changes))
    return found


@pytest.mark.parametrize("name", CHANGED)
def test_on_a_cpu_it_computes_what_upstream_does_to_the_bit(trees: Trees, baseline: Path, name: str) -> None:
    theirs, other = both(trees, baseline, CHANGED[name])
    with torch.no_grad():
        assert torch.equal(theirs(audio(2, 2, 1280)), other(audio(2, 2, 1280)))
    (loss, gradients), (other_loss, other_gradients) = train(theirs), train(other)
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradients, other_gradients)
    assert theirs.state_dict().keys() == other.state_dict().keys()


def test_and_so_does_its_scnet(trees: Trees, baseline: Path) -> None:
    results = []
    for tree in (trees.upstream, baseline):
        with imports_from(tree):
            module = importlib.import_module("models.scnet.scnet")
            torch.manual_seed(0)
            model = module.SCNet(sources=["a", "b"], dims=[4, 8, 8, 8], nfft=256, hop_size=64, win_size=256)
            with torch.no_grad():
                results.append(model(audio(1, 2, 2000)))
    assert torch.equal(*results)
