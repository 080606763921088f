//! What the service says of itself.

pub mod access;
mod json;
pub mod log;
pub mod writer;
