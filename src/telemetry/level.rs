//! How much is logged: a level, and targets that have one of their own.

use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};

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
    EXPORTER,
];

/// Its lines are heard, whatever is logged, and none is written: [`super::partial::Ear`].
const EXPORTER: &str = "opentelemetry";

/// Parts of libraries that say nothing to operators, and up to which level they are heard.
const SILENT: [(&str, &str, LevelFilter); 2] = [
    // Each 5xx of STS: the SDK finds no connection to close, as our connections are no ones of its own.
    ("aws_smithy_runtime", "client::http::connection_poisoning", LevelFilter::OFF),
    // An answer of AWS as a whole; the line of the credentials that could not be loaded says what of it may be told.
    ("aws_config", "profile::credentials", LevelFilter::ERROR),
];

const EXPECTED: &str =
    "expected a level, or targets with levels, such as `info`, `debug` or `info,lambda_policy=debug`";

/// A level for everything, and the targets with others, as `info,lambda_policy=debug` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    most: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

impl Level {
    /// The same for everything.
    pub(super) fn of_all(most: LevelFilter) -> Self {
        Self { most, targets: Vec::new() }
    }

    /// Where the text has no level for everything, that is `otherwise`: a target that does not exist must not silence the rest.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn parse(text: &str, otherwise: LevelFilter) -> Result<Self, String> {
        let mut level = Self::of_all(otherwise);
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => level.most = parse(part)?,
                Some((target, most)) => level.targets.push((target_of(target.trim())?, parse(most.trim())?)),
            }
        }
        Ok(level)
    }

    /// What lets these lines through, and no library's that would print what calls carry.
    pub(super) fn filter(&self) -> Targets {
        let capped = CAPPED.map(|library| (library.to_owned(), self.most.min(LevelFilter::WARN)));
        let silent = SILENT.map(|(library, module, most)| (format!("{library}::{module}"), self.most.min(most)));
        let asked = self.targets.iter().cloned();
        let heard = (EXPORTER.to_owned(), LevelFilter::WARN);
        Targets::new().with_default(self.most).with_targets(asked.chain(capped).chain(silent).chain([heard]))
    }
}

/// As [`Level::parse`] reads it.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.most)?;
        self.targets.iter().try_for_each(|(target, most)| write!(f, ",{target}={most}"))
    }
}

fn parse(text: &str) -> Result<LevelFilter, String> {
    match text.parse() {
        Ok(level) if !text.is_empty() => Ok(level),
        _ if text.is_empty() => Err(EXPECTED.to_owned()),
        _ => Err(format!("`{}` is no level: {EXPECTED}", text.escape_debug())),
    }
}

/// Spans and their fields, which some filters name in brackets, are not logged.
fn target_of(text: &str) -> Result<String, String> {
    let is_path = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    if !is_path {
        return Err(format!("`{}` is no target: {EXPECTED}", text.escape_debug()));
    }
    match CAPPED.iter().find(|library| text.starts_with(**library)) {
        Some(library) => Err(format!("`{library}` stays at `warn`: it would print what calls carry")),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, sync::Mutex};

    use tracing_subscriber::{Registry, fmt, layer::SubscriberExt};

    use super::*;

    #[test]
    fn a_level_is_a_level_or_targets_with_levels() {
        for (right, shown) in [
            ("info", "info"),
            ("DEBUG", "debug"),
            ("off", "off"),
            ("warn,lambda_policy=debug", "warn,lambda_policy=debug"),
            (" warn, lambda_policy = debug ", "warn,lambda_policy=debug"),
            ("lambda_policy::grpc=debug,info", "info,lambda_policy::grpc=debug"),
            // A typing error silences nothing.
            ("lambda_polcy=debug", "error,lambda_polcy=debug"),
        ] {
            let level = Level::parse(right, LevelFilter::ERROR).unwrap();
            assert_eq!(level.to_string(), shown, "{right}");
            assert_eq!(Level::parse(shown, LevelFilter::TRACE), Ok(level), "{right}");
        }
        for (wrong, why) in [
            ("", "expected a level"),
            ("info,", "expected a level"),
            ("loud", "`loud` is no level"),
            ("lambda_policy=loud", "`loud` is no level"),
            ("lambda_policy=", "expected a level"),
            ("=debug", "`` is no target"),
            ("[span]=debug", "`[span]` is no target"),
            ("info,\"a\\b\"=warn", "is no target"),
            ("a\nb", "`a\\nb` is no level"),
            ("hyper=trace", "`hyper` stays at `warn`"),
            ("info,aws_sigv4::sign=trace", "`aws_sigv4` stays at `warn`"),
        ] {
            let said = Level::parse(wrong, LevelFilter::INFO).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn what_libraries_say_in_vain_is_silent_at_every_level() {
        for (level, lines) in [("error", 1), ("info", 1), ("trace", 1), ("trace,aws=trace", 1), ("off", 0)] {
            let (reader, writer) = io::pipe().unwrap();
            let layer = fmt::layer().with_writer(Mutex::new(writer));
            let filter = Level::parse(level, LevelFilter::INFO).unwrap().filter();
            let subscriber = Registry::default().with(filter).with(layer);
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "aws_smithy_runtime::client::http::connection_poisoning", "unable");
                tracing::warn!(target: "aws_config::profile::credentials", "an answer");
                tracing::info!(target: "aws_smithy_runtime::client", "a request");
                tracing::error!(target: "aws_smithy_runtime::client", "a failure");
            });
            let said = io::read_to_string(reader).unwrap();
            assert!(said.lines().count() == lines && said.lines().all(|line| line.contains("a failure")), "{said}");
        }
    }
}
