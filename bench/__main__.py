"""`make bench`: measure, and write a table, the numbers and a picture to bench/results/."""

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
    """What the numbers were measured on, in words."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__}, Python {platform.python_version()}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: medians with quartiles; a ratio above 1 is slower."""
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
    """What a row's group is called: shapes are (batch, heads, tokens, head size) or (batch, channels, samples)."""
    shape = "×".join(map(str, row.get("shape", ())))
    return " ".join(part for part in (row["what"], shape, row.get("dtype", "")) if part)


def picture(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """A bar a way for each group of `rows`: its time over that of the group's base, with quartiles as whiskers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(label(row), []).append(row)
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.21 * sum(len(group) + 1.4 for group in groups.values())))
    colours = {"upstream": "#888888", "patched": "#1b7837", "plain SDPA": "#762a83", "einsum": "#e08214"}
    at, longest = 0.0, 1.0
    for name, group in groups.items():
        base = next(iter(group[0]["ratios"]))
        axes.text(0.02, at, f"{name}, as a multiple of {base}", fontsize=8, va="center", weight="bold")
        for row in group:
            at += 1
            low, middle, high = row["ratios"][base]
            longest = max(longest, high)
            axes.barh(
                at, middle, xerr=[[middle - low], [high - middle]], height=0.8, color=colours.get(row["way"], "#4393c3")
            )
            axes.text(high + 0.05, at, f"{row['way']} {middle:.2f}", fontsize=7, va="center")
        at += 1.4
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set(xlim=(0, longest * 1.25), ylim=(at, -1), yticks=[], xlabel="median time, quartiles as whiskers")
    axes.set_title(title, fontsize=9)
    figure.tight_layout()
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
            rows = models.run(trees.upstream, trees.patched, options.device, options.rounds)
        save(rows, f"models-{options.device}", machine(options.device), options.rounds)
    if options.only != "models" and options.device == "cpu":
        if rows := vendoring.run(options.rounds):
            save(rows, "vendoring", machine("cpu"), options.rounds)
        else:
            print("vendoring: left out, upstream cannot be cloned from here")


def save(rows: list[dict[str, Any]], name: str, where: str, rounds: int) -> None:
    """Write `rows` as Markdown, JSON and PNG, and print the table."""
    text = f"{where}; {rounds} interleaved rounds.\n\n{table(rows)}"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    document = {"machine": where, "rounds": rounds, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    picture(rows, RESULTS / f"{name}.png", where)
    print(text)


if __name__ == "__main__":
    main()
