//! Logs on standard error: JSON for machines, text on a terminal.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
    panic::{self, PanicHookInfo},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use tracing::{Level as Severity, field::display};
use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::{json, level::Level, partial, writer};

/// The environment variable that sets the level, for example `debug` or `lambda_policy=debug`.
pub const LEVEL_VARIABLE: &str = "LAMBDA_POLICY_LOG";

/// The form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One object a line.
    Json,
    /// For people.
    Text,
}

/// Changes the filter of the lines while the process runs.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// The filter in force.
struct Filter {
    level: Mutex<Level>,
    handle: reload::Handle<Targets, Registry>,
}

/// Why a level does not take effect.
#[derive(Debug, PartialEq, Eq)]
pub enum LevelError {
    /// It is none; this is what would be right.
    Wrong(String),
    /// Another program logs, of which this one is a part.
    NotOurs,
}

/// Starts logging; `level` unless the environment says otherwise. A second start changes nothing.
pub fn start(form: Form, level: LevelFilter) {
    let asked = std::env::var(LEVEL_VARIABLE).ok().filter(|text| !text.is_empty());
    let asked = asked.map(|text| Level::parse(&text, level)).transpose();
    let (level, wrong) = match asked {
        Ok(asked) => (asked.unwrap_or(Level::of_all(level)), None),
        Err(why) => (Level::of_all(level), Some(why)),
    };
    let (filter, handle) = reload::Layer::new(level.filter());
    let terminal = std::io::stderr().is_terminal();
    let as_json = match form {
        Form::Auto => !terminal,
        Form::Json => true,
        Form::Text => false,
    };
    let subscriber = Registry::default().with(filter).with(partial::Ear);
    let started = if as_json {
        subscriber.with(json::Lines).try_init()
    } else {
        let text = fmt::layer().with_writer(|| writer::Writer).with_target(false).with_ansi(terminal);
        subscriber.with(text).try_init()
    };
    // An error means that somebody logs already, as in tests.
    if started.is_ok() {
        panic::set_hook(Box::new(tell_panic));
        let _ = FILTER.set(Filter { level: Mutex::new(level), handle });
        if let Some(why) = wrong {
            tracing::error!(
                variable = LEVEL_VARIABLE,
                why,
                "what the environment says of the log's level is wrong, and ignored"
            );
        }
    }
}

/// The standard hook would wait for whoever reads standard error, with all the calls of its worker, and is no JSON.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
    let thread = thread::current();
    tracing::error!(thread = thread.name(), %panic, backtrace, "a thread panicked");
}

/// What is logged at the moment, for example `info` or `info,lambda_policy=debug`; `None` if this program does not log.
pub fn level() -> Option<String> {
    FILTER.get().map(|filter| filter.level.lock().unwrap_or_else(PoisonError::into_inner).to_string())
}

/// Changes what is logged, until it is changed again or the process ends.
///
/// # Errors
/// If the text is no level, or names a library that would print requests.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let level = Level::parse(text, LevelFilter::INFO).map_err(LevelError::Wrong)?;
    let filter = FILTER.get().ok_or(LevelError::NotOurs)?;
    let mut current = filter.level.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, now) = (current.to_string(), level.to_string());
    // Whichever of the two levels lets the line through: with `off` nothing would say why there are no more.
    let heard = tracing::enabled!(Severity::WARN);
    if heard {
        tracing::warn!(before, now, "the log's level is changed");
    }
    filter.handle.reload(level.filter()).map_err(|_| LevelError::NotOurs)?;
    *current = level;
    if !heard {
        tracing::warn!(before, now, "the log's level is changed");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[test]
    fn a_panic_is_a_line_as_others_are() {
        let name = format!("{}::panicking", module_path!().split_once("::").unwrap().1);
        let said = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--ignored", "--nocapture"])
            .env_remove(LEVEL_VARIABLE)
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        let line: serde_json::Value = serde_json::from_str(said.trim_end()).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"a thread panicked".into()), "{said}");
        assert_eq!((&line["thread"], &line["backtrace"]), (&"spoiled".into(), &serde_json::Value::Null), "{said}");
        let panic = line["panic"].as_str().unwrap();
        assert!(panic.contains("log.rs") && panic.ends_with("the reason\nof two lines"), "{said}");
    }

    #[test]
    #[ignore = "no test of its own: the process of the test above"]
    fn panicking() {
        start(Form::Json, LevelFilter::INFO);
        let spoiled = thread::Builder::new().name("spoiled".to_owned()).spawn(|| panic!("the reason\nof two lines"));
        assert!(spoiled.unwrap().join().is_err());
        writer::finish(Duration::from_secs(10));
    }
}
