"""Saves random weights NAME.ckpt for each NAME.yaml, or loads them strictly: `python weights.py save|load FOLDER`.

It runs in the app's folder, whose model classes it uses. The app's worker itself ignores missing and surplus names.
"""

import sys
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path.cwd()))


def main(verb: str, folder: str) -> None:
    from models.bs_roformer import BSRoformer, MelBandRoformer
    from models.scnet import SCNet

    classes = {"bs_roformer": BSRoformer, "mel_band_roformer": MelBandRoformer, "scnet": SCNet}
    for config in sorted(Path(folder).glob("*.yaml")):
        torch.manual_seed(0)
        arguments = yaml.load(config.read_text(encoding="utf-8"), yaml.FullLoader)["model"]
        model, weights = classes[config.stem](**arguments), config.with_suffix(".ckpt")
        if verb == "save":
            torch.save(model.state_dict(), weights)
        else:
            model.load_state_dict(torch.load(weights), strict=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
