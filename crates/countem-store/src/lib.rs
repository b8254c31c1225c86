//! The Store contract of countem, the memory store, decorators and the conformance suite.
