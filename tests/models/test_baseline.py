"""What MODEL_CHANGES.md says of the baseline, on the real repositories: what it had changed, and to what effect."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.models.conftest import Trees, imports_from
from tests.models.test_whole_models import EXPERIMENTAL, MODELS, Model, audio, make, train
from tools.git import commit
from tools.lock import load

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
CHANGED = {
    "bs_roformer": MODELS["BSRoformer"],
    "bs_conformer": MODELS["BSConformer"],
    "mel_band_roformer": MODELS["MelBandRoformer"],
    "mel_band_conformer": MODELS["MelBandConformer"],
    "bs_roformer_experimental": EXPERIMENTAL["BSRoformer"],
}


@pytest.fixture(scope="module")
def baseline(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline's files, which only its repository has."""
    lock, top = load(ROOT), tmp_path_factory.mktemp("baseline")
    trees.need(*(file.path for file in lock.files))
    pin, folders = lock.baseline, [part.path for part in lock.components]
    for path, data in commit(pin.url, pin.commit, pin.branch, folders).files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
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
