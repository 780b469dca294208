"""Write the figures of results/ into the documents: `python benchmarks/docs_numbers.py [--check]`.

A document says where a table belongs by two comments, `<!-- numbers: NAME -->` and `<!-- numbers end -->`;
what lies between them is replaced. NAME is `smoke` (every results/smoke-METHOD.json, a row each) or the
name of a Markdown table in results/ without its ending.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from videossl_hf.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- numbers: (\S+) -->\n).*?(<!-- numbers end -->)", re.DOTALL)


def smoke_table() -> str:
    """One row a method: test top-1 of random and trained weights, means over seeds."""
    lines = [
        "| method | clips | seeds | steps | kNN: random | trained | frame difference | probe: random"
        " | trained | frame difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "results").glob("smoke-*.json")):
        method = path.stem.removeprefix("smoke-")
        name = METHODS[method]
        report = json.loads(path.read_text(encoding="utf-8"))
        means = report["means"][method]
        runs = [run for run in report["runs"] if run["variant"] == method]
        figures = [
            f"{means[f'{features}_{protocol}']:.1f}"
            for protocol in ("knn", "linear")
            for features in ("random", "trained", "frame_difference")
        ]
        level = report["data"]["sounding_shapes"]["nuisance"]
        cells = [f"[{name}](results/{path.name})", level, str(len(runs)), str(runs[0]["steps"]), *figures]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(name: str) -> str:
    """The text of a place."""
    if name == "smoke":
        return smoke_table()
    path = ROOT / "results" / f"{name}.md"
    return path.read_text(encoding="utf-8") if path.is_file() else f"Not measured yet: `make {name}`.\n"


def documents() -> list[Path]:
    """Every Markdown file that is part of the project."""
    return [ROOT / "README.md", *sorted((ROOT / "src").rglob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


def main() -> int:
    """Rewrite, or tell which documents would change."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would")
    check = parser.parse_args().check
    changed = []
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after = PLACE.sub(lambda place: place[1] + table(place[2]) + place[3], before)
        if after != before:
            changed.append(path)
            if not check:
                path.write_text(after, encoding="utf-8")
    for path in changed:
        print(f"{path.relative_to(ROOT)}: {'is not what results/ says' if check else 'written'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
