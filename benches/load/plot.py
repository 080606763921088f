#!/usr/bin/env python3
"""Makes a bar chart (SVG) and a Markdown table of what the load driver wrote.

    python3 benches/load/plot.py target/tmp/load.json chart.svg > table.md
"""

import json
import sys
from html import escape

NAMES = {
    "service": "lambda-policy",
    "floor": "floor: sign and send only",
    "envoy": "Envoy 1.40's aws_lambda filter",
    "sdk": "aws-sdk-lambda in a tonic service",
}
WIDTH, LEFT, BAR, GAP, TOP, BOTTOM = 760, 250, 26, 14, 58, 40
# One colour for what this is about, grey for the rest; both are readable on white and on black.
OWN, OTHER, INK = "#2f81f7", "#8b949e", "#7d8590"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    rows = sorted(results["medians"], key=lambda row: row["peak"]["cpu_us"])
    machine = results["machine"]
    where = f'{machine["cpu"]}, {machine["cores"]} cores, Linux {machine["kernel"]}'
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(chart(rows, where))
    print(table(rows, results, where))


def chart(rows, where):
    """Horizontal bars: the shorter, the better."""
    height = TOP + len(rows) * (BAR + GAP) + BOTTOM
    most = max(row["peak"]["cpu_us"] for row in rows)
    scale = (WIDTH - LEFT - 90) / most
    title = "CPU time of a call in microseconds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}">',
        f"<title>{title}: " + escape(", ".join(f'{NAMES[r["target"]]} {r["peak"]["cpu_us"]:.0f}' for r in rows)) + "</title>",
        f'<text x="12" y="24" font-size="17" font-weight="600">{title}</text>',
        '<text x="12" y="44" font-size="12">200-byte events, 64 in flight, one core; less is better</text>',
    ]
    for number, row in enumerate(rows):
        top, cpu = TOP + number * (BAR + GAP), row["peak"]["cpu_us"]
        own = row["target"] == "service"
        weight = ' font-weight="600"' if own else ""
        middle = top + BAR / 2 + 5
        parts += [
            f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end"{weight}>{escape(NAMES[row["target"]])}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{cpu * scale:.1f}" height="{BAR}" rx="3" fill="{OWN if own else OTHER}"/>',
            f'<text x="{LEFT + cpu * scale + 8:.1f}" y="{middle}"{weight}>{cpu:.1f}</text>',
        ]
    parts += [f'<text x="12" y="{height - 12}" font-size="11">{escape(where)}</text>', "</svg>\n"]
    return "\n".join(parts)


def table(rows, results, where):
    lines = [
        "| | CPU a call | calls/s on one core | p50 | p99 | p99.9 | memory |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        peak, half = row["peak"], row["half_load"]
        name = NAMES[row["target"]]
        lines.append(
            f'| {"**" + name + "**" if row["target"] == "service" else name} | {peak["cpu_us"]:.1f} µs '
            f'| {peak["calls_per_second"]:,.0f} | {half["p50_us"]:.0f} µs | {half["p99_us"]:.0f} µs '
            f'| {half["p999_us"]:.0f} µs | {peak["resident_kb"] * 1024 / 1e6:.0f} MB |'
        )
    direct = results["direct"]
    lines.append(
        f'| the upstream, called directly | | | {direct["p50_us"]:.0f} µs | {direct["p99_us"]:.0f} µs | {direct["p999_us"]:.0f} µs | |'
    )
    few = results["results"]["latency_in_flight"]
    half = f"with {few} in flight, about half of the load" if few else "at half of each one's calls a second"
    lines += [
        "",
        f'Measured on {where}: 200-byte events, 64 calls in flight over 4 HTTP/2 connections, each target on one core, '
        f'medians of {results["results"]["rounds"]} rounds; latencies {half}.',
        "",
        "| criterion | limit | measured | |",
        "|---|---:|---:|---|",
    ]
    for criterion in results["criteria"]:
        bound = "≥" if criterion["at_least"] else "≤"
        measured = criterion["measured"]
        # NaN is null in JSON.
        shown = "not measured" if measured is None else f"{measured:,.2f}"
        verdict = "holds" if criterion["holds"] else "**fails**"
        lines.append(f'| {criterion["name"]} | {bound} {criterion["limit"]:g} | {shown} | {verdict} |')
    return "\n".join(lines)


if __name__ == "__main__":
    main()
