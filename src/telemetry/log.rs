//! Logs on standard error: JSON for machines, text on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

use super::{json, writer};

/// The environment variable that sets the level, for example `debug` or `lambda_policy=debug`.
pub const LEVEL_VARIABLE: &str = "LAMBDA_POLICY_LOG";

/// Libraries that would print requests, credentials among them, or cost more than a call.
const CAPPED: [&str; 9] = [
    "aws_config",
    "aws_runtime",
    "aws_sdk_lambda",
    "aws_sdk_sts",
    "aws_sigv4",
    "aws_smithy_runtime",
    "h2",
    "hyper",
    "hyper_util",
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

/// Starts logging; `level` unless the environment says otherwise. A second start changes nothing.
pub fn start(form: Form, level: LevelFilter) {
    let mut filter =
        EnvFilter::builder().with_default_directive(level.into()).with_env_var(LEVEL_VARIABLE).from_env_lossy();
    for library in CAPPED {
        if let Ok(directive) = format!("{library}=warn").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt().with_env_filter(filter).with_writer(|| writer::Writer).with_target(false);
    let as_json = match form {
        Form::Auto => !terminal,
        Form::Json => true,
        Form::Text => false,
    };
    // An error means that somebody logs already, as in tests.
    let _ = if as_json { lines.event_format(json::Lines).try_init() } else { lines.with_ansi(terminal).try_init() };
}
