"""Notations of times."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime
from zoneinfo import ZoneInfo

from log import UTC, moment, offset


MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def clf(when):
    return when.strftime(f"%d/{MONTHS[when.month - 1]}/%Y:%H:%M:%S %z")


def bsd(when, pad=" "):
    return f"{MONTHS[when.month - 1]} {when.day:{pad}>2} {when:%H:%M:%S}"


def ctime(when, zone=""):
    return f"{when:%a} {bsd(when)} {zone}{when.year}"


def number(when, digits):
    """Returns the exact number of units of `10^-digits` seconds since 1970."""
    micros = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return Decimal(micros).scaleb(digits - 6)


NO_TIMES = (
    "0 42 -1 99999999 1e99 1e-9 NaN yesterday 2015-05 2015 2015-02-30T00:00:00Z 2015-05-17T25:00:00Z 12:34:56 1431857103s "
    "0x55587D4F 1_431_857_103 100000000000000000000 20151301 20150230000000 2015-13-01 05/17/2015 2015-05-17T10:05:03+99:00 "
    "31/Feb/2015:10:05:03+0000 2015-05-17T10:05:03[Nowhere/Land]"
).split() + ["", " ", "2015-05-17 10:05:03 CEST", "2015-05-17 10:05:03 XYZ", "Sep 31 01:34:02", "17/Mai/2015:10:05:03 +0000"]


def time_of(r, zone, at=None):
    """Returns the text of a time, the moment or day that it is (`None`: no time), and whether it has to be read."""
    at = at or moment(r).replace(microsecond=r.choice((0, 5, 750_000, 999_999)))
    there, here = at.astimezone(offset(r)), at.astimezone(zone)
    z, fraction = f"{there:%z}", f"{at.microsecond:06}"
    sure = [
        f"{number(at, 0):.0f}" if not at.microsecond else f"{number(at, 0):f}",
        f"{number(at, 3):f}", f"{number(at, 6):f}", f"{number(at, 9):f}",
        f"{number(at, 0):.20e}", f"{number(at, 3):E}", f"{number(at, 0).scaleb(7):.0f}e-7", f"{number(at, 9) * 1000:f}e-3",
        f"{there:%Y-%m-%dT%H:%M:%S}{z[:3]}:{z[3:]}", f"{there:%Y-%m-%dT%H:%M:%S}.{fraction}{z[:3]}:{z[3:]}",
        f"{at:%Y-%m-%dT%H:%M:%S}.{fraction}Z", f"{there:%Y-%m-%d %H:%M:%S} {z}", f"{there:%Y-%m-%d %H:%M:%S}.{fraction} {z}",
        f"{there:%Y-%m-%d %H:%M:%S}{z[:3]}:{z[3:]}", f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%Y-%m-%d %H:%M:%S} GMT",
        f"{at:%Y-%m-%d %H:%M:%S}.{fraction} +0000 UTC", f"{at:%Y-%m-%d %H:%M:%S}.5 +0000 UTC m=+0.1",
        f"{at.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S} Asia/Tokyo",
        f"{at.astimezone(ZoneInfo('America/New_York')):%Y-%m-%dT%H:%M:%S}[America/New_York]",
        format_datetime(there), clf(there), f"{here:%Y-%m-%d %H:%M:%S}", f"{here:%Y-%m-%dT%H:%M:%S}", f"{here:%Y-%m-%d}",
        f"{here:%Y-%m-%d %H:%M:%S},{fraction[:3]}", f"{here:%Y/%m/%d %H:%M:%S}", f"{here:%Y%m%d%H%M%S}", f"{here:%Y%m%d}",
        ctime(here),
    ]  # fmt: skip
    unsure = [
        f"{at:%Y-%m-%dt%H:%M:%S}z", f"{at:%Y-%m-%dT%H:%M:}60Z", f"{at:%Y%m%dT%H%M%S}Z", f"{at:%Y%m%d%H%M%S}Z", f"{here:%Y%m%d%H%M}",
        f"{here:%Y%m%d%H%M%S}.{fraction[:3]}", f"{here:%Y%m%d%H%M%S}{fraction[:3]}", f"{here:%G-W%V-%u}",
        f"{number(at, 0):.0f}.", f"{number(at, 0):.0f},{fraction}", f"+{number(at, 0):.0f}", ctime(at, "UTC "),
        f"{at.astimezone(timezone(timedelta(hours=1))):%Y-%m-%d %H:%M:%S} CET",
        f"{at.astimezone(timezone(timedelta(hours=2))):%Y-%m-%d %H:%M:%S} EET",
        f"{at.astimezone(timezone(timedelta(hours=-5))):%Y-%m-%d %H:%M:%S} EST", f"{at:%A, %d-%b-%y %H:%M:%S} GMT",
        f"{at:%a, %d %b %Y %H:%M:%S} GMT", f"{here:%d.%m.%Y %H:%M:%S}", f"{here:%Y-%m-%d %H:%M}",
        ctime(at.astimezone(timezone(timedelta(hours=1))), "CET "),
    ]  # fmt: skip
    kind = r.random()
    if kind < 0.1:
        return r.choice(NO_TIMES), None, True
    return (r.choice(sure), at, True) if kind < 0.8 else (r.choice(unsure), at, False)
