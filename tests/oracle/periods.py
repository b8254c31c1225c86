"""Events of one year in a time zone, and their sums by period, from Python's zoneinfo alone.

usage: periods.py ZONE NUMBER SEED
"""

import datetime
import json
import random
import sys
import zoneinfo

UTC = datetime.timezone.utc


def main():
    name, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    zone = zoneinfo.ZoneInfo(name)
    rng = random.Random(f"{name} {seed}")
    first = int(datetime.datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    last = int(datetime.datetime(2026, 12, 30, tzinfo=UTC).timestamp())

    def offset(second):
        return datetime.datetime.fromtimestamp(second, zone).utcoffset()

    changes = [
        second
        for second in range(first, last, 3600)
        if offset(second) != offset(second - 3600)
    ]
    events = []
    for _ in range(number):
        if changes and rng.random() < 0.3:
            second = rng.choice(changes) + rng.randint(-100_000, 100_000)
        else:
            second = rng.randint(first, last)
        events.append((min(max(second, first), last), rng.randint(-3, 1000)))

    sums = {}
    for second, n in events:
        utc = datetime.datetime.fromtimestamp(second, UTC)
        local = datetime.datetime.fromtimestamp(second, zone)
        week = local.isocalendar()
        buckets = {
            "minute": utc.strftime("%Y-%m-%dT%H:%M"),
            "hour": utc.strftime("%Y-%m-%dT%H"),
            "day": local.strftime("%Y-%m-%d"),
            "week": f"{week.year:04}-W{week.week:02}",
            "month": local.strftime("%Y-%m"),
            "quarter": f"{local.year:04}-Q{(local.month + 2) // 3}",
            "year": local.strftime("%Y"),
            "all": "all",
        }
        for period, bucket in buckets.items():
            of_period = sums.setdefault(period, {})
            of_period[bucket] = of_period.get(bucket, 0) + n
    json.dump({"events": events, "sums": sums}, sys.stdout)


main()
