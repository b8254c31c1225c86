"""Reads counters into a data frame of pandas. The server is the first argument, http://localhost:7070 by default."""

import sys

import pandas

API = (sys.argv[1] if len(sys.argv) > 1 else "http://localhost:7070") + "/api/v1"

# CSV is one of the forms of every answer; pandas sends its `storage_options` as headers.
frame = pandas.read_csv(f"{API}/counters/shop", storage_options={"Accept": "text/csv"})
print(frame[["metric", "value"]].to_string(index=False))
print("sum", frame["value"].sum(), frame["value"].dtype)
