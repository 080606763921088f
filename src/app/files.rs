//! How many files the process may have open: each connection is one.

use crate::config::Server;

/// For listeners, the log, secrets that are read again, and the like.
const OTHERS: usize = 64;

/// Raises the limit of open files as far as the system allows, and says how many connections of gateways there may be
/// so that calls still have theirs to Lambda.
pub(super) fn connections(server: &Server) -> usize {
    let files = raised();
    let most = room(server, files);
    if most < server.max_connections {
        tracing::warn!(
            connections = most,
            files,
            "fewer connections than server.max_connections: the system allows too few open files"
        );
    }
    most
}

/// Each call in flight may have a connection to Lambda. Where there is room for neither, gateways get a quarter.
fn room(server: &Server, files: usize) -> usize {
    let left = files.saturating_sub(server.max_in_flight + OTHERS).max(files / 4);
    server.max_connections.min(left).max(1)
}

#[cfg(target_os = "linux")]
fn raised() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let most = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

#[cfg(not(target_os = "linux"))]
fn raised() -> usize {
    usize::MAX
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn gateways_leave_files_for_the_connections_to_lambda() {
        let server =
            Config::parse("server: {max_connections: 4096, max_in_flight: 1024}", "f".as_ref()).unwrap().server;
        for (files, expected, why) in [
            (1 << 20, 4096, "as many as were asked for"),
            (usize::MAX, 4096, "no limit"),
            (4096, 3008, "what calls leave"),
            (1024, 256, "a quarter, where calls alone could take all"),
            (2, 1, "one"),
        ] {
            assert_eq!(room(&server, files), expected, "{why}");
        }
        assert!(raised() > 0);
    }
}
