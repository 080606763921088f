//! Keeps what is in memory from everybody but root.

/// No core dump of this process is written from now on, and no process of the same user can look into it (`prctl(2)`,
/// `PR_SET_DUMPABLE`). On Linux only.
pub fn seal() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process may hold secrets");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    #[test]
    fn a_sealed_process_leaves_no_core_dump() {
        super::seal();
        assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
    }
}
