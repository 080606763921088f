#!/usr/bin/env python3
"""Simulates how the load of few, long connections spreads over pods, and what becomes of it when a pod is lost and replaced.

    python3 deploy/sizing/simulate.py            # fails if the document or a plot says something else
    python3 deploy/sizing/simulate.py --write    # writes them anew

Gateways send as many calls as each other, and spread them evenly over their connections. Through one address (a Service with a cluster
IP, or a load balancer of connections) each connection goes to a pod by chance, and stays. With every pod's address (a headless Service,
or xDS) a gateway has a connection to each pod that it knows of, and sends each call to the next one. A connection that is closed for its
age, or with its pod, is opened anew. The seed is fixed: the same numbers come out each time.
"""

import heapq
import math
import random
from html import escape

import document
from document import number, table

MINUTES, LOST, REPLACED = 60, 10, 10.5  # A pod is lost, and 30 s later another is ready.
JITTER = 0.1  # Up to so much is added to each connection's max_connection_age.
HEARD = 0.5  # Minutes until a gateway with every pod's address knows of a new one: DNS's time to live.
STEP = 0.5
RUNS, SEED = 200, 20260101
# (name, max_connection_age in minutes, whether gateways know every pod)
WAYS = (
    ("one address, no maximum age", math.inf, False),
    ("one address, max_connection_age 30m", 30, False),
    ("one address, max_connection_age 5m", 5, False),
    ("every pod's address", math.inf, True),
)
# (gateways, connections of each, pods)
CLUSTERS = ((2, 2, 3), (4, 4, 6), (16, 8, 6), (16, 8, 24), (64, 16, 24))


class Cluster:
    """The connections of gateways that know one address only."""

    def __init__(self, random_, connections, pods, age):
        self.random, self.age = random_, age
        self.pods, self.load_of = list(range(pods)), [0] * (pods + 1)
        self.on, self.opened, self.ends = [None] * connections, [0] * connections, []
        for connection in range(connections):
            # In the middle of its life: gateways have started at any time.
            self.open(connection, 0.0, self.random.random())

    def open(self, connection, now, left=1.0):
        pod = self.pods[int(self.random.random() * len(self.pods))]
        self.on[connection] = pod
        self.load_of[pod] += 1
        self.opened[connection] += 1
        if self.age < math.inf:
            end = now + left * self.age * (1 + JITTER * self.random.random())
            heapq.heappush(self.ends, (end, connection, self.opened[connection]))

    def until(self, now):
        while self.ends and self.ends[0][0] <= now:
            end, connection, opened = heapq.heappop(self.ends)
            if opened == self.opened[connection]:
                self.load_of[self.on[connection]] -= 1
                self.open(connection, end)

    def lose(self, pod, now):
        self.pods.remove(pod)
        for connection, on in enumerate(self.on):
            if on == pod:
                self.open(connection, now)

    def load(self, pod):
        """As a multiple of the fair share."""
        return self.load_of[pod] / len(self.on) * len(self.pods)

    def hottest(self):
        return max(map(self.load, self.pods))


def hour(random_, connections, pods, age, knows_all):
    """The hottest pod and the new pod at each step, as multiples of the fair share."""
    steps = int(MINUTES / STEP) + 1
    if knows_all:
        # Only a pod that is not yet known has no share.
        heard = REPLACED + HEARD
        new = [(1.0 if step * STEP >= heard else 0.0) for step in range(steps)]
        hottest = [(pods / (pods - 1) if REPLACED <= step * STEP < heard else 1.0) for step in range(steps)]
        return hottest, new
    cluster = Cluster(random_, connections, pods, age)
    hottest, new = [], []
    for step in range(steps):
        now = step * STEP
        cluster.until(now)
        if now == LOST:
            cluster.lose(0, now)
        if now == REPLACED:
            cluster.pods.append(pods)
        hottest.append(cluster.hottest())
        new.append(cluster.load(pods) if pods in cluster.pods else 0.0)
    return hottest, new


def many(gateways, each, pods, age, knows_all, runs=RUNS):
    random_ = random.Random(SEED)
    return [hour(random_, gateways * each, pods, age, knows_all) for _ in range(runs)]


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def recovered(new):
    """Minutes from readiness until the new pod has half of its fair share."""
    start = int(REPLACED / STEP)
    return next(((step - start) * STEP for step in range(start, len(new)) if new[step] >= 0.5), None)


def results():
    rows = []
    for gateways, each, pods in CLUSTERS:
        for name, age, knows_all in WAYS:
            runs = many(gateways, each, pods, age, knows_all, 1 if knows_all else RUNS if gateways < 64 else RUNS // 4)
            before = mean(hottest[int(LOST / STEP) - 1] for hottest, _ in runs)
            end = mean(hottest[-1] for hottest, _ in runs)
            share = mean(mean(new[-int(15 / STEP) :]) for _, new in runs)
            curve = [mean(new[step] for _, new in runs) for step in range(len(runs[0][1]))]
            back = recovered(curve)
            rows.append(
                [
                    f"{gateways} × {each}, {pods} pods",
                    name,
                    f"{before:.2f}",
                    f"{end:.2f}",
                    "never" if back is None else f"{back:g} min",
                    f"{share:.2f}",
                ]
            )
    head = [
        "gateways × connections each",
        "balanced by",
        "hottest pod before",
        "hottest after an hour",
        "new pod at half a share after",
        "its share in the last quarter",
    ]
    return table(head, rows, left=(0, 1))


def spread():
    """The hottest of ten pods, by the number of connections for each pod, in the mean and in the worst twentieth."""
    random_, points = random.Random(SEED), []
    for each in (1, 2, 4, 8, 16, 32, 64, 128):
        hottest = [Cluster(random_, each * 10, 10, math.inf).hottest() for _ in range(RUNS)]
        points.append((each, mean(hottest), percentile(hottest, 0.95)))
    return points


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 360, 60, 20, 64, 50
# The service's colour for what helps, grey for the rest; readable on white and on black.
COLOURS = ("#8b949e", "#d29922", "#2f81f7", "#3fb950")
INK = "#7d8590"


def chart(title, subtitle, x_title, x_ticks, y_ticks, lines):
    """Lines over a grid. `x_ticks` are (place 0 to 1, text), `y_ticks` are values, lines are (name, colour, dash, [(place, value)])."""
    top = max(y_ticks)

    def at(place, value):
        return LEFT + place * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - min(value, top) / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 22 * ((len(lines) + 1) // 2)}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<text x="12" y="24" font-size="17" font-weight="600">{escape(title)}</text>',
        f'<text x="12" y="44" font-size="12">{escape(subtitle)}</text>',
    ]
    for value in y_ticks:
        x, y = at(0, value)
        parts.append(f'<path d="M{x:.0f} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-opacity="0.25"/>')
        parts.append(f'<text x="{x - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place, text in x_ticks:
        x, y = at(place, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle" font-size="12">{escape(x_title)}</text>')
    for index, (name, colour, dash, points) in enumerate(lines):
        path = "L".join("{:.1f} {:.1f}".format(*at(place, value)) for place, value in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        x, y = LEFT + index % 2 * 330, HEIGHT + 10 + index // 2 * 22
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="3"{dashed}/><text x="{x + 32}" y="{y}">{escape(name)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def rebalance_chart():
    gateways, each, pods = 16, 8, 6
    lines = []
    for (name, age, knows_all), colour in zip(WAYS, COLOURS):
        runs = many(gateways, each, pods, age, knows_all, 1 if knows_all else RUNS)
        points = []
        for step in range(int(MINUTES / STEP) + 1):
            points.append((step * STEP / MINUTES, mean(new[step] for _, new in runs)))
        lines.append((name, colour, "", points))
    return chart(
        "The load of a pod that replaces a lost one",
        f"as a share of what is fair; {gateways} gateways with {each} connections, {pods} pods; lost after {LOST} min, replaced 30 s later",
        "minutes",
        [(minute / MINUTES, str(minute)) for minute in range(0, MINUTES + 1, 10)],
        (0, 0.25, 0.5, 0.75, 1, 1.25),
        lines,
    )


def spread_chart(points):
    place = lambda each: math.log2(each) / 7
    return chart(
        "The hottest pod through one address",
        "as a multiple of the fair share; ten pods; by how many connections there are for each pod",
        "connections for each pod",
        [(place(each), str(each)) for each, _, _ in points],
        (0, 1, 2, 3, 4, 5),
        [
            ("in the mean", COLOURS[2], "", [(place(each), value) for each, value, _ in points]),
            ("one time in twenty, at least", COLOURS[0], "", [(place(each), value) for each, _, value in points]),
        ],
    )


def spread_table(points):
    rows = [[each, number(value), number(worst)] for each, value, worst in points]
    return table(["connections for each pod", "hottest pod", "one time in twenty"], rows)


if __name__ == "__main__":
    folder = document.ROOT / "deploy" / "sizing"
    points = spread()
    document.main(
        __doc__,
        {"spread": spread_table(points), "balance": results()},
        {folder / "rebalance.svg": rebalance_chart(), folder / "spread.svg": spread_chart(points)},
    )
