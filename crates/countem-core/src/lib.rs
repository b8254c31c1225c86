//! Names, periods, buckets, deltas, batches and the aggregation table of countem: no I/O, no clock, no async.
