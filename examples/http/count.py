"""Counts and reads with nothing but Python. The server is the first argument, http://localhost:7070 by default."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

API = (sys.argv[1] if len(sys.argv) > 1 else "http://localhost:7070") + "/api/v1"


def ask(method, path, body=None):
    """Sends a request and returns the answer, or raises with the reason."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise SystemExit(f"{problem['code']}: {problem['detail']}") from error


def counter(collection, metric):
    """Returns the path of a counter, whatever its name has in it."""
    return f"/counters/{collection}/{urllib.parse.quote(metric, safe='')}"


# One event, now.
ask("POST", counter("shop", "GET /cart"))

# Many in one request: each is accepted or rejected by itself.
answer = ask(
    "POST",
    "/increments",
    [
        {"collection": "shop", "metric": "order", "labels": {"country": "DE"}},
        {"collection": "shop", "metric": "order", "labels": {"country": "ES"}, "n": 2},
        {"collection": "shop", "metric": "", "n": 1},
    ],
)
print(f"{answer['accepted']} accepted, safe in the {answer['guarantee']}")
for rejected in answer.get("rejected", []):
    print(f"item {rejected['index']} rejected: {rejected['code']}")

# Today's counters. Python's numbers have no limit, so 64 bits are read as they are.
for metric, value in ask("GET", "/counters/shop")["counters"].items():
    print(metric, value)
