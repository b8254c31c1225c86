//! Programs that show how to use countem.
