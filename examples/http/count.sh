#!/bin/sh
# Counts and reads with curl. The server is the first argument, http://localhost:7070 by default.
set -eu
api=${1:-http://localhost:7070}/api/v1

# One event, now. The answer says what it guarantees.
curl -fsS -X POST "$api/counters/shop/order"

# An amount, under a label. Names are percent-encoded in a path.
curl -fsS -X POST "$api/counters/shop/revenue.cents?n=1999&label=country=DE"
curl -fsS -X POST "$api/counters/shop/GET%20%2Fcart"

# Many, one on each line; times are those of the events.
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf '{"collection":"shop","metric":"%s","n":%d,"at":"%s"}\n' order 2 "$now" cart.add 5 "$now" |
    curl -fsS -X POST -H 'Content-Type: application/x-ndjson' --data-binary @- "$api/increments"

# Today's counters, as JSON and as CSV.
curl -fsS "$api/counters/shop"
curl -fsS -H 'Accept: text/csv' "$api/counters/shop"
