"""Keeps the generated parts of deploy/SIZING.md, and files beside it, equal to what the scripts say."""

import math
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "deploy" / "SIZING.md"


def section(path, title):
    """What stands in a Markdown file below a title of the second rank."""
    _, found, rest = path.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    if not found:
        sys.exit(f"{path.relative_to(ROOT)} has no section {title}")
    return rest.partition("\n## ")[0]


def main(doc, blocks, files=()):
    """With `--write` writes what the script makes, else tells what differs, and fails if something does."""
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(doc)
    wanted = {DOCUMENT: DOCUMENT.read_text(encoding="utf-8")}
    for name, text in blocks.items():
        start, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        before, found, rest = wanted[DOCUMENT].partition(start)
        if not found:
            sys.exit(f"{DOCUMENT} has no place for {name}")
        wanted[DOCUMENT] = before + start + text.strip() + "\n" + end + rest.partition(end)[2]
    wanted.update(files)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if sys.argv[1:] == ["--write"]:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
    elif stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"not what {sys.argv[0]} says: {names}\nrun it with --write")


def table(head, rows, left=(0,)):
    """A Markdown table of numbers, but for the columns to the left."""
    bars = ["---" if column in left else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, bars, *rows])


def number(value, digits=3):
    """To so many significant digits, with thousands apart."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
