//! The settings that take effect at a start only, kept so that a reload can say which of them have changed.

use super::{Config, Server};
use crate::policy::secret::Fingerprint;

/// What a process goes on with until it ends, as fingerprints.
#[derive(Debug)]
pub struct Fixed([(&'static str, Fingerprint); 15]);

impl Fixed {
    /// What is in force once a process has started with this configuration.
    pub fn of(config: &Config) -> Self {
        // Named one by one, so that a new setting is a question for the compiler.
        let Server {
            listen,
            socket_mode,
            tls,
            max_connection_age,
            max_connections,
            max_in_flight,
            max_mib_in_flight,
            workers,
            load_reports,
            drain_delay,
            drain_timeout,
        } = &config.server;
        let shown = |value: &dyn std::fmt::Debug| Fingerprint::of([Some(format!("{value:?}").as_bytes())]);
        Self([
            ("server.listen", shown(listen)),
            ("server.socket_mode", shown(socket_mode)),
            // With which certificate is told to a server that serves TLS already.
            ("server.tls", shown(&tls.is_some())),
            ("server.max_connection_age", shown(max_connection_age)),
            ("server.max_connections", shown(max_connections)),
            ("server.max_in_flight", shown(max_in_flight)),
            ("server.max_mib_in_flight", shown(max_mib_in_flight)),
            ("server.workers", shown(workers)),
            ("server.load_reports", shown(load_reports)),
            ("server.drain_delay", shown(drain_delay)),
            ("server.drain_timeout", shown(drain_timeout)),
            ("admin.listen", shown(&config.admin)),
            ("telemetry.metrics", shown(&config.metrics)),
            ("telemetry.otlp", shown(&config.otlp.as_ref().map(|otlp| (&otlp.endpoint, otlp.interval)))),
            ("telemetry.traces", shown(&config.otlp.as_ref().map(|otlp| otlp.traces))),
        ])
    }

    /// The settings that another configuration has otherwise.
    pub fn differences(&self, other: &Config) -> Vec<&'static str> {
        let other = Self::of(other);
        let pairs = self.0.iter().zip(&other.0);
        pairs.filter(|(own, other)| own != other).map(|((setting, _), _)| *setting).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named_and_nothing_else() {
        let config = |text: &str| Config::parse(text, std::path::Path::new("f")).unwrap();
        let first = Fixed::of(&config("server: {listen: '127.0.0.1:1'}"));
        for (text, expected) in [
            ("server: {listen: '127.0.0.1:1'}\npolicies: {}", &[][..]),
            ("server: {listen: '127.0.0.1:1', inline_policies: allow}", &[]),
            ("server: {listen: '127.0.0.1:2'}", &["server.listen"]),
            (
                "server: {listen: '127.0.0.1:1', drain_delay: 6s, max_in_flight: 1}",
                &["server.max_in_flight", "server.drain_delay"],
            ),
            ("server: {listen: '127.0.0.1:1'}\nadmin: {listen: '127.0.0.1:2'}", &["admin.listen"]),
        ] {
            assert_eq!(first.differences(&config(text)), expected, "{text}");
        }
    }
}
