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
    EnvFilter, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use super::{json, partial, writer};

/// The environment variable that sets the level, for example `debug` or `lambda_policy=debug`.
pub const LEVEL_VARIABLE: &str = "LAMBDA_POLICY_LOG";

/// Libraries that would print requests, credentials among them, or cost more than a call.
const CAPPED: [&str; 10] = [
    "aws_config",
    "aws_runtime",
    "aws_sdk_lambda",
    "aws_sdk_sts",
    "aws_sigv4",
    "aws_smithy_runtime",
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
];

/// Parts of libraries that say nothing to operators, and from which level on they are heard.
const SILENT: [(&str, &str, LevelFilter); 2] = [
    // Each 5xx of STS: the SDK finds no connection to close, as our connections are no ones of its own.
    ("aws_smithy_runtime", "client::http::connection_poisoning", LevelFilter::OFF),
    // An answer of AWS as a whole; the line of the credentials that could not be loaded says what of it may be told.
    ("aws_config", "profile::credentials", LevelFilter::ERROR),
];

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
static LEVEL: OnceLock<Level> = OnceLock::new();

/// The filter in force.
struct Level {
    text: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
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
    let text = asked.unwrap_or_else(|| level.to_string());
    let (filter, handle) = reload::Layer::new(filter(&text, level));
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
        let _ = LEVEL.set(Level { text: Mutex::new(text), handle });
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
    LEVEL.get().map(|level| level.text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes what is logged, until it is changed again or the process ends.
///
/// # Errors
/// If the text is no level, or names a library that would print requests.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let text = text.trim();
    check(text).map_err(LevelError::Wrong)?;
    let level = LEVEL.get().ok_or(LevelError::NotOurs)?;
    let mut current = level.text.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, now) = (std::mem::replace(&mut *current, text.to_owned()), text);
    // Whichever of the two levels lets the line through: with `off` nothing would say why there are no more.
    let heard = tracing::enabled!(Severity::WARN);
    if heard {
        tracing::warn!(before, now, "the log's level is changed");
    }
    let changed = level.handle.reload(filter(text, LevelFilter::INFO));
    if changed.is_err() {
        *current = before;
        return Err(LevelError::NotOurs);
    }
    if !heard {
        tracing::warn!(before, now, "the log's level is changed");
    }
    Ok(())
}

fn check(text: &str) -> Result<(), String> {
    let wrong = "expected a level, or targets with levels, such as `info`, `debug` or `info,lambda_policy=debug`";
    let targets: Targets = text.parse().map_err(|_| wrong.to_owned())?;
    // Spans and their fields, which a filter may name in brackets, are not logged.
    if text.is_empty() || text.contains(['[', '{']) {
        return Err(wrong.to_owned());
    }
    for (target, _) in &targets {
        // Without a level a word is a target of that name, which is mostly a level with a typing error.
        if !text.contains('=') {
            return Err(format!("`{target}` is no level: {wrong}"));
        }
        if let Some(library) = CAPPED.iter().find(|library| target.starts_with(**library)) {
            return Err(format!("`{library}` stays at `warn`: it would print what calls carry"));
        }
    }
    Ok(())
}

fn filter(text: &str, level: LevelFilter) -> EnvFilter {
    let mut filter = EnvFilter::builder().with_default_directive(level.into()).parse_lossy(text);
    let capped = CAPPED.map(|library| (library.to_owned(), LevelFilter::WARN));
    let silent = SILENT.map(|(library, module, most)| (format!("{library}::{module}"), most));
    for (target, most) in capped.into_iter().chain(silent) {
        if let Ok(directive) = format!("{target}={most}").parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, process::Command, time::Duration};

    use super::*;

    #[test]
    fn what_libraries_say_in_vain_is_silent_at_every_level() {
        for level in ["info", "trace", "trace,aws_smithy_runtime=trace"] {
            let (reader, writer) = io::pipe().unwrap();
            let layer = fmt::layer().with_writer(Mutex::new(writer));
            let subscriber = Registry::default().with(filter(level, LevelFilter::INFO)).with(layer);
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "aws_smithy_runtime::client::http::connection_poisoning", "unable");
                tracing::warn!(target: "aws_config::profile::credentials", "an answer");
                tracing::info!(target: "aws_smithy_runtime::client", "a request");
                tracing::error!(target: "aws_smithy_runtime::client", "a failure");
            });
            let lines = io::read_to_string(reader).unwrap();
            assert!(lines.contains("a failure") && lines.lines().count() == 1, "{level}: {lines}");
        }
    }

    #[test]
    fn a_level_is_a_level_or_targets_with_levels() {
        for right in ["info", "debug", "off", "warn,lambda_policy=debug", "lambda_policy::grpc=debug,info"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in ["", "loud", "lambda_policy=loud", "[span]=debug", "hyper=trace", "info,aws_sigv4::sign=trace"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

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
