"""Lines of logs, right and nearly right, together with the counters that they add up to.

    lines.py SUITE LINES SEED FOLDER

writes `FOLDER/log` and prints, as JSON, the flags that read it and the expected counters. The expectation follows from
the values that a line was made of and from the documentation, never from a parser: every line has a name of its own, so
each one is judged alone. `must` holds counters that have to be there, `may` those of lines that may be refused instead.
A counter that is in neither is a misread line.
"""

import json
import random
import sys

import access
import columns
import keyed
from log import Log


def mixed(r, log, token):
    """Lines of the combined format among those of all others, which are to be refused."""
    if r.random() < 0.7:
        return access.combined(r, log, token)
    function, zone, _ = SUITES[r.choice(("ndjson", "amounts", "journald", "logfmt", "syslog", "w3c", "csv", "tsv", "regex"))]
    other = Log(zone)
    function(r, other, token)
    for line in b"".join(other.data).split(b"\n"):
        if not line.strip(b"\r") or line.startswith(columns.DIRECTIVES):
            log.no_record(line)
        else:
            log.add(line)


NAMES = "line:{vhost}|{host}|{user}|{method}|{path}|{query}|{protocol}|{status}|{bytes}"
SERVER = "line:{host}|{user}|{method}|{path}|{query}|{protocol}|{status}|{bytes}|{referer}|{agent}"
NGINX = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $http_x_forwarded_for'
APACHE = r"%v:%p %h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" %D"
REGEX = r"^(?<d>\S+) (?<t>\S+) (?<level>\w+)(?: <(?<id>\d+)>)? (?<k>.*)$"
PRIORITY = "pri:{facility}|{severity}|{message}"

# The function that adds one line, or the few that belong together, to a log; the zone of the store; the flags.
SUITES = {
    "combined": (access.combined, "UTC", ["-f", "combined", "-c", NAMES + "|{referer}|{agent}"]),
    "common": (access.common, "UTC", ["-f", "common", "-c", NAMES]),
    "mixed": (mixed, "UTC", ["-f", "combined", "-c", NAMES + "|{referer}|{agent}"]),
    "carriage": (columns.carriage, "UTC", ["-f", "common", "-c", "line:{host}|{path}"]),
    "nginx": (columns.nginx, "UTC", ["--log-format", NGINX, "-c", SERVER + "|{http_x_forwarded_for}"]),
    "apache": (columns.apache, "UTC", ["--log-format", APACHE, "-c", SERVER + "|{duration_us}"]),
    "regex": (columns.regex, "UTC", ["--regex", REGEX, "--time-field", "d t", "--input-zone", "America/New_York", "-c", "line:{level}|{k}", "-c", "id:{id}|{k}"]),
    "w3c": (columns.w3c, "UTC", ["-f", "w3c", "-c", "line:{cs-method}|{cs-uri-stem}|{sc-status}|{cs(User-Agent)}"]),
    "csv": (columns.csv, "Europe/Berlin", ["-f", "csv", "--header", "--time-field", "day time", "-c", "line:{shop}|{note}"]),
    "tsv": (columns.tsv, "UTC", ["-f", "tsv", "--time-field", "2", "--time-format", "unix-millis", "-c", "line:{1}|{3}"]),
    "ndjson": (keyed.ndjson, "Europe/Berlin", ["-f", "ndjson", "--time-field", "ts", "-c", "line:{k}|{/user/id}"]),
    "amounts": (keyed.amounts, "UTC", ["-f", "ndjson", "--time-field", "ts", "--amount", "n", "-c", "line:{k}"]),
    "journald": (keyed.journald, "UTC", ["-f", "journald", "-c", "line:{MESSAGE}|{_SYSTEMD_UNIT}|{PRIORITY}"]),
    "logfmt": (keyed.logfmt, "Europe/Berlin", ["-f", "logfmt", "--time-field", "ts", "-c", "line:{k}|{level}"]),
    "syslog": (keyed.syslog, "UTC", ["-f", "syslog", "--year", "2015", "-c", "line:{host}|{message}", "-c", "app:{app}|{message}", "-c", "pid:{app}|{pid}|{message}", "-c", PRIORITY]),
    "yearless": (keyed.yearless, "UTC", ["-f", "syslog", "-c", "line:{host}|{message}"]),
}


def main():
    name, lines, seed, folder = sys.argv[1:]
    function, zone, flags = SUITES[name]
    r, log = random.Random(f"{name} {seed}"), Log(zone)
    while len(log.data) < int(lines):
        function(r, log, b"t%d" % len(log.data))
    with open(f"{folder}/log", "wb") as file:
        file.writelines(log.data)
    json.dump({"flags": flags, "zone": zone, **log.expected()}, sys.stdout)


if __name__ == "__main__":
    main()
