"""`make bench`: measures, and writes tables, numbers and a picture to bench/results/."""

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench import models, vendoring
from tests.conftest import ROOT
from tests.models.conftest import make_trees

RESULTS = ROOT / "bench" / "results"


def machine(device: str) -> str:
    """A description of the machine."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__}, Python {platform.python_version()}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table of medians with quartiles; a ratio above 1 is slower."""
    bases = list(dict.fromkeys(base for row in rows for base in row["ratios"]))
    memory = any("memory" in row for row in rows)
    head = ["what", "way", "median ms (quartiles)", *(f"/ {base}" for base in bases), *(["peak MB"] if memory else [])]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        low, middle, high = (1e3 * value for value in row["seconds"])
        cells = [label(row), row["way"], f"{middle:.4g} ({low:.4g} to {high:.4g})"]
        for base in bases:
            ratio = row["ratios"].get(base)
            cells.append(f"{ratio[1]:.3f} ({ratio[0]:.3f} to {ratio[2]:.3f})" if ratio else "")
        if memory:
            cells.append(f"{row['memory'] / 1e6:.0f}" if "memory" in row else "")
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def label(row: dict[str, Any]) -> str:
    """What a row's group is called: shapes begin with the batch."""
    shape = "×".join(map(str, row.get("shape", ())))
    return " ".join(part for part in (row["what"], shape, row.get("dtype", "")) if part)


def picture(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw what the patches cost and save: four panels of bars with values. Ours are the dark bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = {(row["what"], row["way"]): row for row in reversed(rows) if row.get("dtype") == "float32"}
    plain = found["one tiny call", "plain SDPA"]["seconds"][1]
    over = {way: 1e6 * (found["one tiny call", way]["seconds"][1] - plain) for way in ("patched", "upstream")}
    ways = ("patched", "upstream", "plain SDPA", "einsum")
    long = {way: found["time attention", way] for way in ways if ("time attention", way) in found}
    # Their shape is (batch, channels, samples).
    wholes = {what: row for (what, way), row in found.items() if way == "patched" and len(row["shape"]) == 3}
    panels = (
        ("one small call, over plain SDPA: µs", over, "{:.1f}"),
        ("attention over 8 s of audio: ms", {way: 1e3 * row["seconds"][1] for way, row in long.items()}, "{:.0f}"),
        ("its memory at the peak: MB", {way: row["memory"] / 1e6 for way, row in long.items()}, "{:.0f}"),
        ("whole models / upstream", {it: wholes[it]["ratios"]["upstream"][1] for it in wholes}, "{:.2f}"),
    )
    figure, places = pyplot.subplots(1, len(panels), figsize=(11, 2.2), facecolor="white")
    for axes, (name, values, form) in zip(places, panels, strict=True):
        dark = ["#0b5394" if way in {"patched", *wholes} else "#c4c9d0" for way in values]
        bars = axes.barh(list(values), list(values.values()), color=dark, edgecolor="#404040", linewidth=0.6)
        inside = {"label_type": "center", "color": "white"} if values.keys() == wholes.keys() else {"padding": 3}
        axes.bar_label(bars, [form.format(value) for value in values.values()], fontsize=8, **inside)
        axes.set(xlim=(0, 1.25 * max(values.values())), xticks=[])
        axes.set_title(name, fontsize=8.5, loc="left", weight="bold")
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.invert_yaxis()
        if values.keys() == wholes.keys():
            for at, row in enumerate(wholes.values()):
                low, middle, high = row["ratios"]["upstream"]
                axes.errorbar(middle, at, xerr=[[middle - low], [high - middle]], ecolor="#101010", capsize=3)
            axes.axvline(1, color="#c4c9d0", linewidth=1)
    figure.text(
        0.995,
        0.01,
        f"medians, and quartiles of the whole models; float32; {title}",
        fontsize=7,
        ha="right",
        color="#404040",
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("models", "vendoring"))
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if options.only != "vendoring":
        with tempfile.TemporaryDirectory() as top:
            trees = make_trees(Path(top))
            rows = models.run(trees.upstream, trees.extras, options.device, options.rounds)
        save(rows, f"models-{options.device}", machine(options.device), options.rounds)
    if options.only != "models" and options.device == "cpu":
        if rows := vendoring.run(options.rounds):
            save(rows, "vendoring", machine("cpu"), options.rounds)
        else:
            print("vendoring: left out, upstream cannot be cloned from here")


def save(rows: list[dict[str, Any]], name: str, where: str, rounds: int) -> None:
    """Write `rows` as Markdown and JSON, models also as a picture, and print the table."""
    text = f"{where}; {rounds} interleaved rounds.\n\n{table(rows)}"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    document = {"machine": where, "rounds": rounds, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if name != "vendoring":
        picture(rows, RESULTS / f"{name}.png", where)
    print(text)


if __name__ == "__main__":
    main()
