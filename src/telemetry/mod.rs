//! What the service says of itself.

pub mod access;
pub mod log;
