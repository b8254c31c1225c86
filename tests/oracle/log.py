"""A log that knows what it adds up to."""

import unicodedata
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = timezone.utc
ODD = (b"caf\xe9", "ä🦀".encode(), b"\xff\xc3", b"a\x1bb", b"\x7f", "\u0085x".encode(), b"~" * 600, "ä".encode() * 300)
TOO_LONG = b"x" * (1 << 20)


def metric(*values):
    """Returns the name that the values make with bars between them, as `MetricName::shortened` documents it."""
    units = []
    for char in b"|".join(value or b"-" for value in values).decode("utf-8", "surrogateescape"):
        if "\udc80" <= char <= "\udcff":
            units.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif unicodedata.category(char) == "Cc":
            units.append("".join(f"\\x{byte:02x}" for byte in char.encode()))
        else:
            units.append(char)
    name = "".join(units)
    if len(name.encode()) <= 512:
        return name
    fnv = 0x6C62272E07BB014262B821756295C58D
    for byte in name.encode():
        fnv = (fnv ^ byte) * 0x0000000001000000000000000000013B % (1 << 128)
    kept, size = [], 0
    for unit in units:
        size += len(unit.encode())
        if size > 494:
            break
        kept.append(unit)
    return f"{''.join(kept)}…#{fnv % (1 << 48):012x}"


class Log:
    """The bytes of a log, and its expected counters by day and `collection:name`."""

    def __init__(self, zone):
        self.zone, self.data, self.state = ZoneInfo(zone), [], None
        self.must, self.may = (defaultdict(lambda: defaultdict(int)) for _ in range(2))
        # The least and the greatest number.
        self.records, self.counted = [0, 0], [0, 0]
        self.blank = 0

    def add(self, line, must=(), may=(), records=(1, 1), counted=None, end=b"\n"):
        """Adds a line.

        An outcome is a day or a moment, a name and perhaps an amount; a name that is no text has its collection first.
        `records` and `counted` bound the numbers of records on the line, and of those that count for any template.
        """
        self.data.append(line + end)
        counted = counted or (min(len(must), records[0]), min(len(must) + len(may), records[1]))
        self.records = [sum(pair) for pair in zip(self.records, records)]
        self.counted = [sum(pair) for pair in zip(self.counted, counted)]
        for outcomes, into in ((must, self.must), (may, self.may)):
            for when, name, *amount in outcomes:
                day = when.astimezone(self.zone).date() if isinstance(when, datetime) else when
                # A counter to which nothing is added need not be there.
                into = self.may if amount == [0] else into
                into[str(day)][name if isinstance(name, tuple) else ("line", name)] += amount[0] if amount else 1

    def no_record(self, line=b""):
        """Adds a line that is blank, or a directive."""
        self.data.append(line + b"\n")
        self.blank += 1

    def judge(self, line, at, is_sure, name, *amount):
        """Adds a line of the time `at`, which is `None` for a text that is no time."""
        outcome = [(at, name, *amount)] if at else []
        self.add(line, outcome if is_sure else (), () if is_sure else outcome)

    def expected(self):
        def flat(days):
            return {day: {f"{c}:{name}": n for (c, name), n in names.items()} for day, names in days.items()}

        return {"must": flat(self.must), "may": flat(self.may), "blank": self.blank, "records": self.records, "counted": self.counted}


def moment(r):
    """Returns a moment on one of a few days, often near midnight."""
    midnight = datetime(2015, 5, r.choice((16, 17, 18)), tzinfo=UTC)
    return midnight + timedelta(seconds=r.choice((r.randrange(86400), r.randrange(-9000, 9000))))


def offset(r):
    return timezone(timedelta(minutes=r.choice((0, 0, 120, -420, 330, -570, 765, -720))))
