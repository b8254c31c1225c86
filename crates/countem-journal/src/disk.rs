//! The directory of a journal and the files in it.

pub(crate) mod file;
pub(crate) mod lock;
pub(crate) mod provenance;
pub(crate) mod reserve;
pub(crate) mod set_aside;
pub(crate) mod witness;
