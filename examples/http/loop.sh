#!/bin/sh
# Counts from a shell: the lines of standard input, one `countem inc` for each, which returns once the store has it. The store is that of
# the variable COUNTEM_STORE. For whole files `countem ingest` is many times faster.
set -eu
countem=${COUNTEM:-countem}

while read -r job outcome; do
    "$countem" inc jobs "$job.$outcome"
done
"$countem" get jobs
