//! What is refused and is no call: it has no line of one, but the log says whose it is.

use crate::{
    error::{Error, Fault},
    policy::{Caller, Name},
};

/// The methods that are served and make no call.
const METHODS: [&str; 2] = ["ListPolicies", "DispatchEvent"];

/// Such a method by its path.
pub(super) fn method(path: &str) -> &'static str {
    METHODS.into_iter().find(|method| path.ends_with(method)).unwrap_or("_OTHER")
}

/// Tells who was refused what: as a warning unless only they can act on it.
pub(super) fn refused(method: &'static str, caller: &Caller, error: &Error) {
    if error.is_broken_off() {
        return;
    }
    let (known, peer) = (caller.known().map(Name::as_str), caller.origin());
    macro_rules! told {
        ($level:ident) => {
            tracing::$level!(
                method,
                caller = known,
                peer = peer.map(tracing::field::display),
                reason = error.kind().reason(),
                error = error.message(),
                detail = error.detail(),
                "a request that is no call was refused"
            )
        };
    }
    match error.kind().fault() {
        Fault::Caller => told!(info),
        Fault::Policy | Fault::Aws | Fault::Service => told!(warn),
    }
}
