//! The HTTP side: the façade on the gateway's port, and the admin port's probes.

pub mod admin;
pub mod facade;
