//! Laws of the facade.

mod builder;
mod collector;
mod count;
mod features;
