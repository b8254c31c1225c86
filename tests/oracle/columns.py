"""Columns, format strings of servers, and regular expressions."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from access import BAD, Access, alter
from log import ODD, metric, moment
from times import number

DIRECTIVES = (b"#Fields:", b"#Version:", b"#Software:", b"#Date:", b"#Start-Date:", b"#End-Date:", b"#Remark:")
W3C = [b"date", b"time", b"cs-method", b"cs-uri-stem", b"sc-status", b"cs(User-Agent)", b"s-ip"]


def w3c(r, log, token):
    at = moment(r)
    values = dict(zip(W3C, (f"{at:%Y-%m-%d}".encode(), f"{at:%H:%M:%S}".encode(), r.choice((b"GET", b"POST", b"-")), b"/" + token, r.choice((b"200", b"-")),
                            r.choice((b"Mozilla/5.0+(X)", b"-")), b"192.0.2.1")))  # fmt: skip
    outcome = (at, metric(*(values[name] for name in W3C[2:6])))

    def name_fields(fields):
        log.no_record(b"#Fields: " + b" ".join(fields))

    if log.state is None:
        log.no_record(b"#Version: 1.0")
        log.add(b" ".join(values.values()))
        log.state = W3C
        name_fields(W3C)
    kind, fields, separator = r.randrange(14), log.state, r.choice((b" ", b" ", b"\t"))
    line = separator.join(values[field] for field in fields)
    if kind == 0:
        log.state = r.sample(W3C, len(W3C))
        name_fields(log.state)
    elif kind == 1:  # a wanted column is missing until the next directive
        name_fields(W3C[:4])
        log.add(b" ".join(values[field] for field in W3C[:4]))
        name_fields(fields)
    elif kind == 2:
        log.no_record(r.choice((b"", b"#Software: x", b"#Remark: y", b"#Date: 2015-05-17 10:00:00")))
    elif kind == 3:  # a value with the separator in it, which moves those behind it
        agent = values[b"cs(User-Agent)"]
        values[b"cs(User-Agent)"] = r.choice((b"Mozilla/5.0 (X)", b'"Mozilla/5.0 (X)"', b" ", b"a  b"))
        may = [(at, metric(*(values[name].strip(strip) for name in W3C[2:6]))) for strip in (b'"', b" ", b"@")]
        log.add(b" ".join(values[field] for field in fields), may=may, records=(1, 1))
        values[b"cs(User-Agent)"] = agent
    elif kind in (4, 5):
        length = r.randrange(1, len(line))
        parts = line[:length].split(separator)
        torn = dict(zip(fields, parts))
        is_seen = all(name in torn for name in W3C[:6])
        # The hour alone is a time.
        is_time = torn.get(b"date") == values[b"date"] and len(torn.get(b"time", b"")) > 1
        log.add(line[:length], may=[(at, metric(*(torn[name] for name in W3C[2:6])))] if is_seen and is_time else [], counted=(0, 1))
    elif kind == 6:  # torn, and joined to the next line
        length, other = r.randrange(1, len(line)), dict(values) | {b"cs-uri-stem": b"/" + token + b"b"}
        rest = line[:length]
        glued = dict(other) | ({fields[0]: rest + other[fields[0]]} if separator not in rest else {})
        is_time = glued[b"date"] == values[b"date"] and glued[b"time"] == values[b"time"]
        log.add(rest + separator.join(other[field] for field in fields), may=[(at, metric(*(glued[name] for name in W3C[2:6])))] if is_time else [])
    elif kind == 7:
        values[r.choice((b"date", b"time"))] = r.choice((b"-", b"2015-02-30", b"25:00:00", b"x", b""))
        log.add(separator.join(values[field] for field in fields))
    elif kind == 8:
        values[b"cs-uri-stem"] += r.choice(ODD)
        log.add(separator.join(values[field] for field in fields), [(at, metric(*(values[name] for name in W3C[2:6])))])
    else:
        log.add(line + r.choice((b"", b"\r")), [outcome])


def quote(text):
    return b'"' + text.replace(b'"', b'""') + b'"'


# Notes in quotes, and notes without quotes around them with their values.
QUOTED = (b"a,b", b'"', b'say "hi"', b'""', b",", b'a,"b",c', b" a, b ", b"a\nb", b"a\r\n\r\nb", b'a "\n" b', b"\n")
BARE = [(note, note) for note in (b"", b" ", b"-", b"a'b", b'b"c', b' "a"', b'12" x', *ODD)] + [(b'"a"b', b"ab")]


def csv(r, log, token):
    at = moment(r)
    here = at.astimezone(log.zone)
    day, time = f"{here:%Y-%m-%d}".encode(), f"{here:%H:%M:%S}".encode()

    def row(note, *more, shop=token):
        cells = (quote(cell) if r.random() < 0.3 else cell for cell in (day, time, shop))
        return b",".join((*cells, note, b"5", *more))

    if log.state is None:
        log.data.append(b'day,"time",shop,note,n\n')
        log.state = True
    kind, outcome, plain = r.randrange(16), (at, metric(token, b"x")), b",".join((day, time, token, b"xyz", b"5"))
    if kind < 4:
        note = r.choice(QUOTED)
        log.add(row(quote(note)), [(at, metric(token, note))])
    elif kind == 4:
        note, value = r.choice(BARE)
        log.judge(row(note), at, note == value, metric(token, value))
    elif kind == 5:  # a separator that is not quoted
        log.add(row(r.choice((b"a,b", b' "a, b"'))))
    elif kind == 6:
        log.add(row(b"x", b""), may=[outcome])
    elif kind == 7:  # a quote that is closed far behind, with a record in it
        note = b"torn\n" + plain + b"\nx"
        log.add(row(b'"' + note + b'"'), [(at, metric(token, note))])
    elif kind in (9, 10):  # torn
        length, begin = r.randrange(1, len(plain)), len(day + time + token) + 3
        log.add(plain[:length], may=[(at, metric(token, plain[begin:length][:3]))] if length >= begin else [], counted=(0, 1))
    elif kind == 11:
        bad = r.choice((b"", b"-", b"2015-02-30", b"25:00:00", b"x", b"17.05.2015x"))
        log.add(plain.replace(r.choice((day, time)), bad))
    elif kind == 12:
        log.no_record()
    elif kind == 13:  # torn, and joined to the next line
        log.add(plain[: r.randrange(1, len(plain))] + plain.replace(token, token + b"b"), may=[(at, metric(token + b"b", b"xyz"))])
    else:
        log.add(row(b"x") + r.choice((b"", b"\r")), [outcome])


def tsv(r, log, token):
    at, word = moment(r), r.choice((b"a", b"", b'"q"', b"a,b", b" x ", *ODD))
    millis = number(at, 3)
    time = r.choice((f"{millis:f}", f"{millis:.0f}.5", f"{millis:.15E}", f" {millis:f}")).encode()
    outcome, line = (at, metric(token, word)), b"\t".join((token, time, word))
    kind = r.randrange(10)
    if kind == 0:
        log.add(b"\t".join((token, r.choice((b"", b"x", b"1_000", b"1e99", b"NaN", b"2015-05-17", b"0x10", b"1.2.3", b"1431857103000s")), word)))
    elif kind == 1:  # the format says that small numbers are times
        time, day = r.choice(((b"0", "1970-01-01"), (b"-1", "1969-12-31"), (b"86399999.9", "1970-01-01"), (b"-0.5", "1969-12-31")))
        log.add(b"\t".join((token, time, word)), [(day, metric(token, word))])
    elif kind == 2:
        log.add(b"\t".join((token, time)))
    elif kind == 3:
        log.add(line + b"\tmore\t", [outcome])
    elif kind == 4:  # torn in the last column
        length = r.randrange(len(line) - len(word), len(line) + 1)
        log.add(line[:length], [(at, metric(token, line[len(token + time) + 2 : length]))])
    elif kind == 5:
        log.add(r.choice((token, b"%s %s %s" % (token, time, word))))
    else:
        log.add(line + r.choice((b"", b"\r")), [outcome])


ODD_REQUEST = {
    "request": (b"-", b"", rb"\x16\x03\x01\x02", b"SSH-2.0-Go", rb"\x22q\x22", b"GET", rb"\"b\""),
    "agent": (rb"c \"d\" \\", rb"\x22q\x22", b"", b"caf\xe9", b"~" * 600),
    "method": (b"get", b"M-SEARCH"),
    "protocol": (b"HTTP/2.0", b"HTTP/3", b""),
}


def server(r, log, token, make, last):
    """Lines of a server with the format string that `make` stands for, whose last field is `last`."""
    a, kind = Access(r, token, True), r.randrange(14)
    a.status = a.status.replace(b"-", b"200")

    def outcome(a, last=last):
        method = (a.request, b"", b"", b"") if a.request is not None else (a.method, a.path, a.query, a.protocol)
        return (a.at, metric(a.host, a.user, *method, a.status, a.bytes, a.referer, a.agent, last))

    if kind < 3:
        alter(r, a, token, ODD_REQUEST)
        log.add(make(a), [outcome(a)])
    elif kind == 3:
        log.add(make(a) + r.choice((b" x", b'"', b" 1 2 3", b"x y")), may=[outcome(a, last + b'"')])
    elif kind == 4:
        line = make(a)
        log.add(line[: r.randrange(1, len(line) - len(last))])
    elif kind == 5:  # torn, and joined to the next line
        line, b = make(a), Access(r, token + b"b", True)
        rest, whole = line[: r.randrange(1, len(line) + 1)], make(b)
        first = whole.split(b" ")[0]
        b.host = rest + b.host if b" " not in rest and first == b.host else b.host
        log.add(rest + whole, may=[outcome(b)])
    elif kind == 6:
        alter(r, a, token, {"user": (b"jo doe",), "agent": (b'Mozilla "Foo" bar %s',)})
        log.add(make(a), may=[outcome(a)])
    elif kind == 7:
        alter(r, a, token, {"time": [time for time in BAD["time"] if b"T" not in time]})
        log.add(make(a))
    elif kind == 8:
        log.add(r.choice((b"garbage", b"- -", b"{}", b"\xff", b'x - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1"')))
    else:
        log.add(make(a), [outcome(a)])


def nginx(r, log, token):
    last = r.choice((b"-", b"203.0.113.7", b"203.0.113.7, 198.51.100.2"))
    server(r, log, token, lambda a: a.line() + b" " + last, last)


def apache(r, log, token):
    server(r, log, token, lambda a: a.line(b"shop.example.org:443 " + a.head()) + b" 1234", b"1234")


def regex(r, log, token):
    at = moment(r)
    there = at.astimezone(ZoneInfo("America/New_York"))
    level, number = r.choice((b"info", b"warn")), r.choice((b"", b" <7>"))
    k = token + r.choice((b"", b" x", *ODD))
    k = k.replace(b"\n", b"")
    time = f"{there:%Y-%m-%d %H:%M:%S}".encode()
    outcomes = [(at, metric(level, k))] + ([(at, ("id", metric(b"7", k)))] if number else [])
    line = b"%s %s%s %s" % (time, level, number, k)
    kind = r.randrange(8)
    # A pattern of characters does not match other bytes.
    is_text = k.decode("utf-8", "replace").encode() == k
    if kind == 0:
        log.add(r.choice((b"no match", b"x y z", b"2015-05-17 10:00:00 info", b"2015-02-30 10:00:00 info x", b"2015-05-17 25:00:00 info x", b" " + line)))
    elif kind == 1:
        there += timedelta(hours=1)
        log.add(f"{at:%Y-%m-%d %H:%M:%S}Z".encode() + line[len(time) :], *(outcomes, ()) if is_text else ((), outcomes), counted=(int(is_text), 1))
    else:
        log.add(line, *(outcomes, ()) if is_text else ((), outcomes), counted=(int(is_text), 1))


def carriage(r, log, token):
    """Lines that end with a carriage return alone."""
    a = Access(r, token, False)
    if r.random() < 0.9:
        log.add(a.line(), [(a.at, metric(a.host, a.path))], end=b"\r")
    else:
        log.add(b"garbage", end=b"\r")
