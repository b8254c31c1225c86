//! Real servers and a cutting proxy for the tests of countem.
