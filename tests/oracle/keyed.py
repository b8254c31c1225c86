"""Formats whose values have keys, and syslog."""

import re
from datetime import datetime, timedelta

from log import ODD, TOO_LONG, UTC, metric, moment
from times import bsd, number, time_of

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")

# Texts of JSON and their values.
TEXTS = [(text.encode(), value.encode()) for text, value in (
    (r"\u00e4", "ä"), (r"\ud83e\udd80", "🦀"), (r"\"q\"", '"q"'), (r"\/", "/"), (r"a\nb", "a\nb"), (r"\t\b\f\r", "\t\b\f\r"),
    (r"\u0000", "\0"), (r"\\x16", r"\x16"), (" x ", " x "), ("ä🦀|", "ä🦀|"), ("~" * 600, "~" * 600), ("NaN,", "NaN,"), ("{}[]:", "{}[]:"),
    ("a\tb", "a\tb"), ("\x1b", "\x1b"), ("\x7f", "\x7f"), (r"\x22q\x22", '"q"'), (r"\x5C", "\\"), (r"\xC3\xA4", "ä"), (r"\u00E4\xc3\xa4", "ää"),
)] + [(b"caf\xe9", b"caf\xe9"), (b"\xff", b"\xff"), (rb"\xe9", b"\xe9")]  # fmt: skip
HALVES = [(text, value.encode()) for text, value in (
    (rb"\ud83d", "\ufffd"), (rb"\ude00x", "\ufffdx"), (rb"\ud83dx\ude00", "\ufffdx\ufffd"), (rb"\ude00\ud83d\ude00", "\ufffd😀"))]  # fmt: skip
# Pairs beside the wanted ones that change nothing, and those that take the meaning from them.
GOOD_PAIRS = [(pair,) for pair in (b'"f":NaN', b'"f":-Infinity', b'"f":"a\tb"', b'"f":"\xe9"', rb'"f":"\x22"', rb'"f":"\ud83d"', b'"\xe9":1')] + [(b'"a":1', b'"a":2')]
TWICE = (b'"k":"x"', b'"k":null', b'"k":{"a":1}', rb'"\u006b":"x"', b'"user":{"id":8}', b'"user":{"n":8}', b'"user":null', b'"user":"x"', b'"ts":"2015-05-01T12:00:00Z"')
PLAIN = (b"true", b"false", b"null", b"1.0", b"2.50", b"-0", b"1E5", b"123456789012345678901234567890", b"1e400")
NO_VALUES = (b"{}", b"[]", b'{"a":1}', b"[1]", b"True", b"undefined", b"x", b"'x'", b"01", b"+1", b".5", b"1.", b"0x10", b"", rb'"\q"', rb'"\u12"', rb'"\x2"', b"NaNcy", b"nan")
BAD_JSON = (b'{"a":1,}', b"{'a':1}", b"{a:1}", b'[{"k":"x"}]', b'"k"', b"null", b'{"k":"x"', b"{", b"}", b'{"k" "x"}', b'{"k":"x" "a":1}', b"k: x", b"  ",
            b"// x", b'{"k":"x"}}', b'"k":"x"}', b"{,}")  # fmt: skip


def value_of(r, text):
    return text.encode() if NUMBER.fullmatch(text) and r.random() < 0.5 else b'"%s"' % text.encode()


def obj(r, *pairs):
    """Returns an object with the pairs, and others, in any order."""
    others = [b'"z":[1,{"k":"no"},null]', b'"user2":{"id":8,"k":9}', b'"e":"}{"', b'"K":"no"', rb'"\u006b2":1']
    pairs = list(pairs) + r.sample(others, r.randrange(3))
    r.shuffle(pairs)
    return b"{" + r.choice((b",", b", ", b" ,\t")).join(pairs) + b"}"


def ndjson(r, log, token):
    text, at, is_sure = time_of(r, log.zone)
    at, is_sure = (at, is_sure) if at else (None, True)
    if r.random() < 0.6:
        at = moment(r)
        text, is_sure = f"{at:%Y-%m-%dT%H:%M:%SZ}", True
    ts, k, user, name = b'"ts":' + value_of(r, text), b'"k":"%s"' % token, b'"user":{"n":[1],"id":7}', metric(token, b"7")
    line = obj(r, ts, k, user)
    outcome = [(at, name)] if at else []
    kind = r.randrange(24)
    if kind < 5:  # values of texts; a half of a surrogate pair has none for sure
        (extra, value), is_clear = (r.choice(TEXTS), True) if kind else (r.choice(HALVES), False)
        log.judge(obj(r, ts, k[:-1] + extra + b'"', user), at, is_sure and is_clear, metric(token + value, b"7"))
    elif kind == 5:  # values that are no texts, as they are written
        plain, is_clear = r.choice([(plain, True) for plain in PLAIN] + [(b"NaN", False), (b"-Infinity", False)])
        log.judge(obj(r, ts, b'"k":' + plain, b'"user":{"id":"%s"}' % token), at, is_sure and is_clear, metric(plain, token))
    elif kind == 6:
        log.add(obj(r, ts, b'"k":' + r.choice(NO_VALUES), b'"user":{"id":"%s"}' % token))
    elif kind in (7, 8):
        log.judge(obj(r, ts, k, user, *r.choice(GOOD_PAIRS)), at, is_sure, name)
    elif kind == 9:
        log.add(obj(r, ts, k, user, r.choice((k, b'"d":' + b"[" * 300 + b"]" * 300, b'"f":' + r.choice(NO_VALUES)))), may=outcome)
    elif kind in (10, 11):  # a wanted key twice, with two values
        log.add(obj(r, ts, k, user, r.choice(TWICE)))
    elif kind in (12, 13):  # objects that share a line
        noon = moment(r).replace(hour=12, minute=0, second=0)
        names = [b"%s.%d" % (token, n) for n in range(r.randrange(2, 4))]
        objects = [obj(r, f'"ts":"{noon:%Y-%m-%dT%H:%M:%SZ}"'.encode(), b'"k":"%s"' % name, user) for name in names]
        outcomes, separator = [(noon, metric(name, b"7")) for name in names], r.choice((b"", b" ", b"\t", b",", b", "))
        if b"," in separator:
            log.add(separator.join(objects), may=outcomes, records=(1, len(names)))
        else:
            log.add(separator.join(objects), outcomes, records=(len(names), len(names)))
    elif kind == 14:  # something else before or behind
        line = r.choice((b"%s garbage", b"%s]", b"%s}", b"%s,", b"web_1  | %s", b"2015-05-16T10:00:00Z stdout F %s", b"\x1e%s", b"\xef\xbb\xbf%s", b"%s {")) % line
        log.add(line, may=outcome, records=(1, 2))
    elif kind == 15:
        log.add(line[: r.randrange(1, len(line))])
    elif kind == 16:  # torn, and joined to the next object
        other = obj(r, ts, b'"k":"%sb"' % token, user)
        log.add(line[: r.randrange(1, len(line))] + other, may=[(at, metric(token + b"b", b"7"))] if at else [], records=(1, 2))
    elif kind == 17:
        log.add(r.choice(BAD_JSON))
    elif kind == 18:
        log.no_record()
    elif kind == 19:  # a wanted key is missing
        pairs = r.choice(((ts, k), (ts, user), (ts, k, b'"user":{}'), (ts, k, b'"user":7'), (ts, k, b'"user":[7]')))
        log.add(obj(r, *pairs))
    elif kind == 20:
        log.add(obj(r, *r.choice(((k, user), (k, user, b'"ts":null'), (k, user, b'"ts":true'), (k, user, b'"ts":{}'), (k, user, b'"ts":""'), ()))))
    elif kind == 21 and r.random() < 0.01:
        log.add(obj(r, ts, k[:-1] + TOO_LONG + b'"', user))
    else:
        log.judge(r.choice((b"%s", b" %s", b"\t%s ", b"%s\r")) % line, at, is_sure, name)


AMOUNTS = ((b"1024", 1024), (b"1024.0", 1024), (b"1e3", 1000), (b"1E3", 1000), (b"10e-1", 1), (b"-5", -5), (b"0", 0), (b"-0", 0), (b"2.50e1", 25), (b'"7"', 7),
           (b'"1e3"', 1000), (b"100000000000000000000e-17", 1000), (b"1.0e0", 1), (b"1000000.000000000000000000000000000000000000", 1000000))  # fmt: skip
UNSURE_AMOUNTS = ((b'"+5"', 5), (b'" 7 "', 7), (b'"-"', 0), (b'"5."', 5), (b"0e99", 0), (b'"007"', 7), (b"1e+2", 100))
NO_AMOUNTS = (b"1.5", b"1e-3", b"-0.5", b"null", b"true", b'""', b'"x"', b'"0x10"', b'"1_000"', b'"1,000"', b'"1.000,5"', '"٣"'.encode(), b'"1e"', b'"NaN"', b"NaN",
              b"Infinity", b"1e19", b"9223372036854775808", b"1e400", b"[1]", b'{"a":1}', b'"1 2"', b"1.0000000000000000000000000000000000001", b'"."', b'"--1"',
              b'"1e1.5"', b'"5 GB"', b'"1k"', b"1e99999999999", b"-9223372036854775809", b"0.9999999999999999999999999999999999999999")  # fmt: skip


def amounts(r, log, token):
    at = moment(r)
    pairs = b'"ts":%s' % f"{number(at, 0):f}".encode(), b'"k":"%s"' % token
    kind = r.random()
    if kind < 0.5:
        text, n = r.choice(AMOUNTS)
        log.judge(obj(r, *pairs, b'"n":' + text), at, True, metric(token), n)
    elif kind < 0.7:
        text, n = r.choice(UNSURE_AMOUNTS)
        log.judge(obj(r, *pairs, b'"n":' + text), at, False, metric(token), n)
    else:
        log.add(obj(r, *pairs, *r.choice(((b'"n":' + r.choice(NO_AMOUNTS),), (b'"n":' + r.choice(NO_AMOUNTS),), (), (b'"n":1', b'"n":2')))))


def journald(r, log, token):
    at = moment(r)
    micros = f"{number(at, 6):f}".encode()
    time, unit = b'"__REALTIME_TIMESTAMP":"%s"' % micros, [b'"_SYSTEMD_UNIT":"a.service"', b'"PRIORITY":"6"']
    text, value = r.choice(TEXTS[:13])
    message, name = b'"MESSAGE":"%s%s"' % (token, text), metric(token + value, b"a.service", b"6")
    kind = r.randrange(12)
    line = obj(r, time, message, *unit)
    if kind == 0:  # large fields are null, binary ones and repeated ones arrays
        message = b'"MESSAGE":' + r.choice((b"[104,105]", b'["a","b"]', b"null"))
        log.add(obj(r, time, message, *unit), may=[(at, metric(b"null", b"a.service", b"6"))] if message.endswith(b"null") else [])
    elif kind == 1:
        log.add(obj(r, time, message, unit[0]))
    elif kind == 2:
        log.add(line[: r.randrange(1, len(line))])
    elif kind == 3:
        log.add(obj(r, r.choice((b'"__REALTIME_TIMESTAMP":"x"', b'"ts":1', b'"__REALTIME_TIMESTAMP":""', b'"__REALTIME_TIMESTAMP":null')), message, *unit))
    elif kind == 4:
        log.add(obj(r, b'"__REALTIME_TIMESTAMP":' + micros, message, *unit), may=[(at, name)])
    else:
        log.add(line, [(at, name)])


# Lines of logfmt with a time, a level and a token: right ones, doubtful ones and wrong ones.
GOOD_LOGFMT = (b" %s level=%s k=%s", b"\t%s level=%s k=%s ", b"flag %s level=%s k=%s", b"%s level=%s z=1 k=%s z=2", b"%s level=%s k=%s\r",
               b"%s level=%s k=%s", b'%s level="%s" k="%s"')  # fmt: skip
UNSURE_LOGFMT = (b"%s level = %s k=%s", b"%s level =%s k=%s", b"%s level=%s k=%s k=same")
BAD_LOGFMT = (b'%s level=%s k="%s', b'%s level=%s k="%sx"y', b'%s level=%s k="%s\\"', b'%s level=%s k="%s"z=1', b'%s level=%s k="%s" "', b"%s level=%s k=%s =x",
              b'%s level=%s k=%s "a b"=1', b"%s level=%s k=%s level=x", b'%s level=%s k=%s k=""', b"%s level=%s k=%s k", b"%s level=%s k=%s ts=2015-05-01",
              b"%s level=%s x=%s")  # fmt: skip
NO_LOGFMT = (b"plain text", b"{}", b'{"k":"x","ts":1431857103}', b"=", b"a", b'"', b"\xff", b"k=x level=info", b'k="x')
# Texts without quotes, and escapes of which programs differ in their opinion.
BARE = [(text, True) for text in (b",x", b"/a?b", "ä🦀".encode(), b"(x)", b"\xe9", b"{}")] + [(text, False) for text in (b"=b", b'"s', b"'s", b"\\n", b"?a=b&c")]
QUOTED = [pair for pair in TEXTS if not re.search(rb"\\[x/b]", pair[0])] + [(b"a=b c", b"a=b c"), (rb"\u0007", b"\7")]
UNSURE_QUOTED = ((rb"\d", rb"\d"), (rb"\u12", rb"\u12"), (rb"\ud83d", "\ufffd".encode()), (rb"\x22", rb"\x22"), (rb"\/", b"/"))


def logfmt(r, log, token):
    text, at, is_sure = time_of(r, log.zone)
    if r.random() < 0.6:
        at = moment(r)
        text, is_sure = f"{at:%Y-%m-%dT%H:%M:%SZ}", True
    ts = b"ts=" + (b'"%s"' if re.search(r"[ =]|^$", text) or r.random() < 0.3 else b"%s") % text.encode()
    level, kind = r.choice((b"info", b"warn")), r.randrange(20)
    line = b"%s level=%s k=%s" % (ts, level, token)
    if kind < 4:
        extra, value = r.choice(QUOTED)
        log.judge(b'%s level=%s k="%s%s" x=1' % (ts, level, token, extra), at, is_sure, metric(token + value, level))
    elif kind == 4:
        extra, value = r.choice(UNSURE_QUOTED)
        names = {metric(token + value, level), metric(token + extra, level)}
        log.add(b'%s level=%s k="%s%s"' % (ts, level, token, extra), may=[(at, name) for name in names if at], counted=(0, int(at is not None)))
    elif kind in (5, 6):
        extra, is_clear = r.choice(BARE)
        log.judge(line + extra, at, is_sure and is_clear, metric(token + extra, level))
    elif kind == 7:  # values that are empty or missing
        log.judge(b"%s k=%s flag %s" % (ts, token, r.choice((b"level=", b'level=""', b"level", b"level= x"))), at, is_sure, metric(token, b"-"))
    elif kind == 8:
        log.judge(r.choice(UNSURE_LOGFMT).replace(b"same", token) % (ts, level, token), at, False, metric(token, level))
    elif kind in (9, 10):
        log.add(r.choice(BAD_LOGFMT) % (ts, level, token))
    elif kind == 11:
        log.add(r.choice(NO_LOGFMT))
    elif kind == 12:
        log.no_record()
    elif kind in (13, 14):
        length, name_at = r.randrange(1, len(line)), len(line) - len(token)
        # A key without `=` has an empty value.
        log.add(line[:length], may=[(at, metric(line[name_at:length], level))] if at and length >= name_at - 1 else [], counted=(0, 1))
    elif kind == 15:  # torn, and joined to the next line; a cut in a key leaves a key
        other = b"%s level=%s k=%sb" % (ts, level, token)
        log.judge(line[: r.randrange(1, len(line))] + other, at, False, metric(token + b"b", level))
    else:
        log.judge(r.choice(GOOD_LOGFMT) % (ts, level, token), at, is_sure, metric(token, level))


FACILITIES = b"kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 local3 local4 local5 local6 local7".split()
SEVERITIES = b"emerg alert crit err warning notice info debug".split()


NO_SYSLOG = (b"hello", b"<34>", b"  ", b"<34>1 - - - - - -", b"<34>2 2015-05-17T10:00:00Z h a - - - x", b"{}", b"May 17 10:00:00", b"May 17 10:00:00 web1",
             b"<34>1 2015-05-17T10:00:00Z h a - - [open x")  # fmt: skip


class Syslog:
    """The values of a syslog record, of either standard; an absent one is `None`."""

    def __init__(self, r, token):
        self.at, self.r, self.message = moment(r), r, token + r.choice((b"", b" x [y] z: 1", b" <34>1", b" k=v", *ODD[:6]))
        self.is_new, self.pri = r.random() < 0.5, r.choice((None, 0, 34, 165, 191))
        self.host, self.app, self.pid = r.choice((b"web1", b"web1.example.org", b"192.0.2.1", b"2001:db8::7")), r.choice((b"sshd", b"postfix/smtpd", b"a-b.c")), r.choice((None, b"12"))
        self.time, self.data = bsd(self.at, r.choice(" 0")).encode(), b"-"
        if self.is_new or r.random() < 0.3:
            zone = r.choice((UTC, self.at.astimezone().tzinfo))
            self.time = self.at.astimezone(zone).isoformat(timespec=r.choice(("seconds", "milliseconds"))).replace("+00:00", r.choice(("Z", "+00:00"))).encode()
        if self.is_new:
            self.pri = self.pri or 13
            self.data = r.choice((b"-", b'[a@1 k="v"]', rb'[a k="\"]\\"][b]'))

    def head(self):
        return b"" if self.pri is None else b"<%d>" % self.pri

    def line(self):
        pid = b"" if self.pid is None else b"[%s]" % self.pid
        if self.is_new:
            values = [b"-" if value is None else value for value in (self.time, self.host, self.app, self.pid, None, self.data)]
            return self.head() + b"1 " + b" ".join(values) + b" " + self.message
        tag = [self.app + pid + b":"] if self.app else []
        return self.head() + b" ".join((self.time, *([self.host] if self.host else []), *tag, self.message))

    def outcomes(self):
        templates = {"line": (self.host, self.message), "app": (self.app, self.message), "pid": (self.app, self.pid, self.message)}
        if self.pri is not None:
            templates["pri"] = (FACILITIES[self.pri // 8], SEVERITIES[self.pri % 8], self.message)
        return [(self.at, (name, metric(*values))) for name, values in templates.items() if None not in values]


def syslog(r, log, token):
    s = Syslog(r, token)
    kind = r.randrange(18)
    if kind == 0:
        s.host = None if s.is_new else s.host
        log.add(s.line(), s.outcomes(), counted=(1, 1))
    elif kind == 1:  # no time
        s.time = r.choice((b"2015-02-30T10:00:00Z", b"Feb 30 10:00:00", b"May 17 25:00:00", b"Mai 17 10:00:00", b"x"))
        log.add(s.line())
    elif kind == 2:  # priorities that are none
        s.pri, head = None, r.choice((b"<192>", b"<999>", b"<>", b"<x>", b"<-1>", b"<+34>", b"<34", b"<3 4>", b"<1234567>"))
        log.add(head + (b"1 " if s.is_new else b"") + s.line())
    elif kind == 3:  # programs that do not name the host
        s.is_new, s.host, s.pid = False, None, r.choice((None, b"12"))
        log.add(s.line(), may=s.outcomes(), counted=(0, 1))
    elif kind == 4:  # a message without a tag
        s.is_new, s.app, s.pid, s.message = False, None, None, token + b" no tag"
        log.add(s.line(), s.outcomes(), counted=(1, 1))
    elif kind == 5:  # torn in the message
        line = s.line()
        length = r.randrange(len(line) - len(s.message), len(line))
        s.message = s.message[: len(s.message) - len(line) + length]
        log.add(line[:length], s.outcomes(), counted=(1, 1))
    elif kind == 6:  # torn in the time or the host
        line, whole = s.line(), s.head() + s.time + b" " + (s.host or b"")
        log.add(line[: r.randrange(1, len(whole))])
    elif kind == 7:  # the same, and joined to the next record
        whole, other = s.head() + (b"1 " if s.is_new else b"") + s.time + b" " + s.host, Syslog(r, token + b"b")
        other.pri = other.pri or 13
        log.add(whole[: r.randrange(len(s.head()) + 3, len(whole))] + other.line(), may=other.outcomes(), counted=(0, 1))
    elif kind == 8:
        log.add(r.choice(NO_SYSLOG))
    elif kind == 9:
        log.no_record()
    elif kind == 10:  # a byte order mark before the message
        s.is_new, s.pri, s.data, s.time, message = True, 34, b"-", s.at.isoformat().encode(), s.message
        s.message = b"\xef\xbb\xbf" + message
        line, s.message = s.line(), message
        log.add(line, s.outcomes(), counted=(1, 1))
    elif kind == 11:  # a year, a fraction or a zone in the time, or a length before the record
        s.is_new, time = False, bsd(s.at)
        s.time = r.choice((time + ".123", f"{time[:6]} {s.at.year} {s.at:%H:%M:%S}", time + " UTC", "*" + time, "123 " + time)).encode()
        log.add(s.line(), may=s.outcomes(), counted=(0, 1))
    elif kind == 12:  # a bracket that is not closed in the tag
        s.is_new, s.app, s.pid = False, s.app + b"[12 " + token + r.choice((b"", b" [x] y")), None
        log.add(s.line())
    else:
        log.add(s.line(), s.outcomes(), counted=(1, 1))


def yearless(r, log, token):
    """Times without a year are in the one that is nearest to now."""
    at = (datetime.now(UTC) + timedelta(days=r.choice((-150, -31, -1, 0, 1, 150)))).replace(microsecond=0)
    log.add(f"{bsd(at)} web1 a: ".encode() + token, [(at, metric(b"web1", token))])
