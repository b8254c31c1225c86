//! Router, collectors, storage actors, shutdown and stats of countem.
