"""Access logs of web servers."""

import ipaddress

from log import ODD, metric, moment, offset
from times import clf

ACCESS = "vhost host user method path query protocol status bytes".split()
V4, V6, NAMES = (b"192.0.2.1", b"198.51.100.77", b"203.0.113.9"), (b"2001:db8::7", b"::1"), (b"crawler.example.org", b"localhost")
GARBAGE = (b"garbage", b"- - -", b"  ", b'"', b"[17/May/2015:10:05:03 +0000]", b"{}", b"\xff\xfe\xfd", b'x [y] "GET /" 200 5 "-" "-"',
           b"Sep 28 01:34:02 web1 sshd[1]: up", b'{"k":"x","ts":1431857103}', b"level=info ts=1431857103 k=x", b"<34>1 - - - - - -")  # fmt: skip


class Access:
    """The values of one access log record, and the line that they make."""

    def __init__(self, r, token, has_tail):
        self.r, self.token, self.has_tail, self.at = r, token, has_tail, moment(r)
        self.host, self.user, self.vhost = r.choice(V4 * 4 + V6 * 2 + NAMES), r.choice((b"-", b"-", b"jo", b"jo@x.org")), b""
        self.method, self.path = r.choice((b"GET", b"POST", b"get", b"PROPFIND")), b"/" + token
        self.query, self.protocol = r.choice((b"", b"a=1&b=2", b"u=http://x/?y")), r.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"))
        self.status, self.bytes = r.choice((b"200", b"404", b"503", b"-")), r.choice((b"0", b"5", b"203023", b"-"))
        self.referer, self.agent = r.choice((b"-", b"http://r.example/")), b"Mozilla/5.0 (X; " + token + b")"
        self.request, self.extra, self.time = None, b"", clf(self.at.astimezone(offset(r))).encode()

    def head(self):
        return self.host + b" - " + self.user

    def line(self, head=None):
        """Returns the line, and remembers where its last texts begin."""
        target = self.path + (b"?" + self.query if self.query else b"")
        request = b" ".join(filter(None, (self.method, target, self.protocol))) if self.request is None else self.request
        line = (self.head() if head is None else head) + b' [%s] "%s" %s ' % (self.time, request, self.status)
        self.bytes_at = len(line)
        line += self.bytes
        if self.has_tail:
            self.referer_at = len(line) + 2
            line += b' "%s" "%s"' % (self.referer, self.agent)
            self.agent_at = len(line) - 1 - len(self.agent)
        return line + self.extra

    def name(self, **other):
        values = {key: getattr(self, key) for key in ACCESS + ["referer", "agent"]} | other
        if self.request is not None:
            values |= {"method": self.request, "path": b"-", "query": b"-", "protocol": b"-"}
        keys = ACCESS + (["referer", "agent"] if self.has_tail else [])
        return metric(*(values[key] for key in keys))

    def outcome(self, **other):
        return (self.at, self.name(**other))

    def torn(self, length):
        """Returns the outcomes of the first bytes of the line: a text that the end of the line cuts counts as far as it goes."""
        line = self.line()[:length]
        if not self.has_tail:
            return [self.outcome(bytes=line[self.bytes_at :])] if length > self.bytes_at else []
        if length >= self.agent_at:
            return [self.outcome(agent=line[self.agent_at : self.agent_at + len(self.agent)])]
        if length >= self.referer_at:
            return [self.outcome(referer=line[self.referer_at : self.referer_at + len(self.referer)], agent=b"-")]
        return []


def is_host(text):
    """Tells whether `text` alone would be taken for a host: an address, or a name that has letters."""
    try:
        return bool(ipaddress.ip_address(text.decode().split("%")[0]))
    except ValueError:
        return b":" not in text and any(chr(byte).isalpha() for byte in text)


# Values of a field with which a line is no record.
BAD = {
    "host": (b"1192.0.2.1", b"192.0.2.1192.0.2.1", b"192.0.2", b"192.0.2.1.7", b"22001:db8::7", b"2001:db8::1::2", b"999.0.2.1"),
    "status": (b"2x0", b"20", b"2000", b"", b"200.0", b"+20"),
    "bytes": (b"1x", b"-5", b"1.5", b"1e3", b"x", b"", b"1_000"),
    "time": (b"31/Feb/2015:10:05:03 +0000", b"17/May/2015:24:05:03 +0000", b"17/May/2015:10:05:03", b"17/Mai/2015:10:05:03 +0000", b"-",
             b"17/May/2015:10:05:03 00000", b"17/May/2015 10:05:03 +0000", b"2015-05-17T10:05:03+00:00", b"17/May/2015:10:60:03 +0000"),
}  # fmt: skip
# Values with which it is one: of the fields of both formats, and of those that only the combined one has.
ODD_HEAD = {
    "host": (b"fe80::1%eth0", b"192.0.2.1:4711", b"[2001:db8::7]:4711"),
    "user": (b"jo doe", b"jo [a] doe", b"jo 10.0.0.1 x", b"10.0.0.1", b"caf\xe9", b"\x01"),
    "request": (b"-", b"", rb"\x16\x03\x01\x02", b"\x16\x03\x01\xa2", b"SSH-2.0-Go", rb"\x22quoted\x22", b"GET"),
    "path": (b"/%s b c", b'/%s/"q"', rb"/%s/\"q\"", rb"/%s/\x22", b"/%s/[a] ", *(b"/%s" + odd for odd in ODD)),
    "protocol": (b"",),
}
ODD_TAIL = {
    "agent": (b"", rb"c \"d\" \\\" %s", *(b"%s" + odd for odd in ODD)),
    "referer": (b"", rb"a \"b\" \\"),
    "extra": (b' 0.003 "203.0.113.1, 10.0.0.1" -', b' "-"', b" 12 0.1 . TLSv1.3", b' "x y" "z"'),
}
# Values with quotes that the server did not escape.
UNSURE_TAIL = {
    "agent": (b'%s "Foo" bar', b'%s"', b'%s "x" "y', b"%s\"q\", z"),
    "referer": (b'a"b" c', b'a?q="x"', b'a"'),
    "path": (b'/%s" 200 5 "x"', b'/%s" 404 -', b'/%s" 200 5 "-" "y'),
}


def alter(r, a, token, values):
    """Gives a field one of its values. The token stays in the line."""
    field = r.choice(list(values))
    value = r.choice(values[field])
    setattr(a, field, value.replace(b"%s", token))
    if field == "path":
        a.query = b""
    elif field == "request":
        a.user = token


def access(r, log, token, has_tail):
    a = Access(r, token, has_tail)
    kind = r.randrange(30 if has_tail else 24)
    if kind == 0:  # a virtual host comes first
        a.host, a.vhost = r.choice(V4 + V6), r.choice((b"shop.example.org:443", b"www.example.org", b"localhost:80", b"-"))
        log.add(a.line(a.vhost + b" " + a.head()), [a.outcome()])
    elif kind == 1:  # addresses of proxies
        a.host = r.choice(V4 + V6)
        line = a.line(r.choice((b", ", b",")).join((a.host, *r.sample(V4, r.randrange(1, 3)))) + b" - " + a.user)
        log.add(line, [a.outcome()])
    elif kind == 2:  # a list whose client is unknown, or with a second list behind it
        a.host = r.choice((b"unknown", b"203.0.113.9"))
        rest = b", 198.51.100.2" if a.host == b"unknown" else r.choice((b" 198.51.100.2", b", 198.51.100.2 192.0.2.1", b", unknown"))
        log.add(a.line(a.host + rest + b" - " + a.user), may=[a.outcome()])
    elif kind == 3:  # a prefix of syslog, journald or compose
        a.host = r.choice(V4 + V6)
        begin = r.choice((b"Feb  6 12:14:14 web1 nginx: ", b"May 17 10:05:03 web1 nginx[12]: ", b"web_1  | ", b"2015-05-17T10:05:03Z web1 httpd: "))
        log.add(a.line(begin + a.head()), [a.outcome()])
    elif kind == 4:  # a prefix with an address, or before a name
        begin = r.choice((b"Feb  6 12:14:14 10.0.0.5 nginx: ", b"192.0.2.80:443 ", b"web_1  | ", b"x y ", b"10.0.0.5 "))
        log.add(a.line(begin + a.head()), may=[a.outcome(), a.outcome(vhost=begin[:-1])])
    elif kind == 5:  # a quote before the address or around it
        log.add(a.line(r.choice((b'"%s - %s', b'"%s" - %s')) % (a.host, a.user)), [a.outcome()])
    elif kind in (6, 7):
        alter(r, a, token, BAD)
        log.add(a.line())
    elif kind in (8, 9, 10):
        alter(r, a, token, ODD_HEAD)
        log.add(a.line(), [a.outcome()])
    elif kind == 11:  # a leap second is in the day that it ends
        a.at = a.at.replace(second=59)
        a.time = clf(a.at).replace(":59 ", ":60 ").encode()
        log.add(a.line(), may=[a.outcome()])
    elif kind == 12:  # spaces where there should be one, or none, and tabs
        line, at = a.line(), r.choice((0, len(a.host), len(a.host) + 2))
        odd = (line[:at] + b" " + line[at:], b" " + line + b" ", a.line(a.host + b"\t-\t" + a.user))
        log.add(r.choice(odd), may=[a.outcome()])
    elif kind == 13:  # names are missing, or too many
        log.add(a.line(r.choice((a.host + b" -", a.host, b"- " + a.user, b"", a.head() + b" -", a.host + b" - - 0.003"))))
    elif kind == 14:
        log.add(r.choice(GARBAGE))
    elif kind == 15:
        log.no_record()
    elif kind == 16:  # CR before the newline, NULs before the line
        log.add(b"\0" * r.choice((0, 0, 7)) + a.line(), [a.outcome()], end=b"\r\n")
    elif kind == 17:  # torn
        length = r.randrange(1, len(a.line()))
        log.add(a.line()[:length], may=a.torn(length))
    elif kind in (18, 19):  # torn, and joined to the next record
        b, length = Access(r, token + b"b", has_tail), r.randrange(1, len(a.line()))
        rest = a.line()[:length]
        glued = rest + b.host
        may = [b.outcome(), b.outcome(vhost=rest.strip())] if b" " in rest else [b.outcome(host=glued)] if is_host(glued) else []
        log.add(rest + b.line(), may=may)
    elif kind == 20:  # joined whole, or by a CR
        b = Access(r, token + b"b", has_tail)
        log.add(a.line() + r.choice((b"", b" ", b"\r")) + b.line(), may=[a.outcome(), b.outcome()], records=(1, 2))
    elif kind == 24:  # unquoted dashes
        a.referer, a.agent = b"-", r.choice((b"-", token))
        log.add(a.line().replace(b' "-"', b" -"), [a.outcome()])
    elif kind in (25, 26):
        alter(r, a, token, ODD_TAIL)
        log.add(a.line(), [a.outcome()])
    elif kind in (27, 28):
        alter(r, a, token, UNSURE_TAIL)
        log.add(a.line(), may=[a.outcome()])
    elif kind == 29:  # garbage behind the agent
        a.extra = r.choice((b"garbage", b'x"', b'"'))
        log.add(a.line(), may=[a.outcome(), a.outcome(agent=a.agent + b'"'), a.outcome(agent=a.agent + b'"x')])
    else:
        log.add(a.line(), [a.outcome()])


def combined(r, log, token):
    access(r, log, token, True)


def common(r, log, token):
    access(r, log, token, False)
