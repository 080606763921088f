//! The HTTP side: the façade on the gateway's port, the admin port, and the keys of callers' tokens.

pub mod admin;
pub mod facade;
mod figures;
mod guard;
pub mod keys;
mod page;
mod policies;
mod small;
mod status;
