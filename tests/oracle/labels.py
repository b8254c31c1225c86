"""Counts under random sets of labels, and their sums by label, from Python alone.

usage: labels.py NUMBER SEED
"""

import json
import random
import sys

KEYS = ["country", "plan", "http.method", "é", "k1", "__x"]
PARTS = ['"', "\\", "\n", "}", "{", ",", "=", "🦀", " ", "a", "b", "\t", "\x01", "\x9b", "\\n", '\\"', '",plan="', "", "x" * 20]


def main():
    rng = random.Random(f"labels {sys.argv[2]}")
    values = ["".join(rng.choices(PARTS, k=rng.randint(0, 4))) for _ in range(40)]
    sets = []
    for _ in range(int(sys.argv[1]) // 4):
        keys = rng.sample(KEYS, rng.randint(0, 4))
        sets.append([(key, rng.choice(values)) for key in keys])
    counts = []
    for _ in range(int(sys.argv[1])):
        labels = list(rng.choice(sets))
        rng.shuffle(labels)
        counts.append({"labels": labels, "n": rng.randint(-5, 100)})

    groups = []
    for size in (1, 2, 3):
        keys = rng.sample(KEYS, size)
        sums = {}
        for count in counts:
            labels = dict(count["labels"])
            row = tuple(labels.get(key, "") for key in keys)
            sums[row] = sums.get(row, 0) + count["n"]
        groups.append({"keys": keys, "rows": [[list(row), n] for row, n in sums.items()]})
    distinct = {}
    for count in counts:
        row = tuple(sorted(count["labels"]))
        distinct[row] = distinct.get(row, 0) + count["n"]
    metrics = [[list(map(list, row)), n] for row, n in distinct.items()]
    json.dump({"counts": counts, "groups": groups, "metrics": metrics}, sys.stdout)


main()
