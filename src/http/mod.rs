//! The HTTP side: for now the admin port's probes.

pub mod admin;
