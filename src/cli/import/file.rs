//! Writes what came of a document as a policies file, with what was lost beside what came of it.

use std::{fmt::Write as _, path::Path};

use super::{
    Imported,
    draft::{Draft, Policy},
    kong::routes::Route,
    names::Origin,
    one_line,
};
use crate::config::Fault;

/// What has a value in a file.
enum Yaml {
    Text(String),
    /// A secret: the environment variable's name.
    Variable(String),
    Map(Vec<(&'static str, Yaml)>),
    /// As it stands here.
    Literal(&'static str),
    /// The rule for a failed function, with its status.
    Rule(u16),
}

impl Imported {
    /// The policies file.
    pub(super) fn file(&self, importer: &str, document: &Path) -> String {
        let mut out = String::new();
        let name = document.file_name().unwrap_or(document.as_os_str()).to_string_lossy();
        comment(&mut out, "", &format!("written by `lambda-policy import {importer} {name}`"));
        self.variables(&mut out);
        let whole = self.policies.iter().any(|policy| policy.whole);
        out.push_str(if whole { "policies:\n" } else { "policies: {}\n" });
        for policy in &self.policies {
            write_policy(&mut out, policy);
        }
        self.routes(&mut out);
        for fault in &self.faults {
            comment(&mut out, "", &lost(fault));
        }
        out
    }

    fn variables(&self, out: &mut String) {
        if self.variables.iter().next().is_some() {
            comment(
                out,
                "",
                "no secret is copied: these environment variables have to be set, each to what stands in its place now",
            );
        }
        for variable in self.variables.iter() {
            let origin = match &variable.origin {
                Origin::Reference { said, .. } => said.clone(),
                Origin::Text(place) => format!("the text at line {}", place.line),
                Origin::Named(place) => format!("in the gateway's secret that line {} names", place.line),
                Origin::Missing(place) => format!("nothing, though line {} has the other half of the pair", place.line),
            };
            comment(out, "", &format!("  {}: {origin}", variable.name));
        }
    }

    fn routes(&self, out: &mut String) {
        let is_whole = |route: &Route| self.policies.get(route.policy).is_some_and(|policy| policy.whole);
        if self.routes.iter().any(is_whole) {
            out.push_str(
                "# the first that fits; a path ends at a slash here, while kong's `/a` takes `/ab` too\nroutes:\n",
            );
        } else if !self.routes.is_empty() {
            out.push_str("# routes:\n");
        }
        for route in &self.routes {
            let Some(policy) = self.policies.get(route.policy) else { continue };
            let mark = if policy.whole { "" } else { "# " };
            let mut first = "- ";
            for (key, value) in
                [("host", route.host.as_deref()), ("path", route.path.as_deref()), ("policy", Some(&policy.name))]
            {
                if let Some(value) = value {
                    let _ = writeln!(out, "  {mark}{first}{key}: {}", scalar(value));
                    first = "  ";
                }
            }
        }
    }
}

fn write_policy(out: &mut String, policy: &Policy) {
    comment(out, "  ", format!("line {}: {}", policy.place.line, policy.path).trim_end_matches([':', ' ']));
    for fault in &policy.faults {
        comment(out, "  ", &lost(fault));
    }
    for hint in &policy.hints {
        comment(out, "  ", hint);
    }
    if !policy.whole {
        comment(out, "  ", "the service would not take this as it stands:");
    }
    let mark = if policy.whole { "" } else { "# " };
    let _ = writeln!(out, "  {mark}{}:", scalar(&policy.name));
    let mut lines = String::new();
    write_map(&mut lines, "", settings(&policy.draft));
    for line in lines.lines() {
        let _ = writeln!(out, "  {mark}  {line}");
    }
}

/// The settings in the order of the README.
fn settings(draft: &Draft) -> Vec<(&'static str, Yaml)> {
    let text = |text: &Option<String>| text.clone().map(Yaml::Text);
    let word = |word: Option<&str>| word.map(|word| Yaml::Text(word.to_owned()));
    let timeout = draft.timeout.map(|timeout| Yaml::Text(humantime::format_duration(timeout).to_string()));
    let settings = [
        ("title", text(&draft.title)),
        ("description", text(&draft.description)),
        ("function", text(&draft.function)),
        ("qualifier", text(&draft.qualifier)),
        ("region", text(&draft.region)),
        ("credentials", Some(credentials(draft))),
        ("event", word(draft.event)),
        ("invocation", word(draft.invocation)),
        ("on_function_error", draft.unhandled_status.map(Yaml::Rule)),
        ("log", word(draft.log)),
        ("timeout", timeout),
        ("endpoint", text(&draft.endpoint).map(|url| Yaml::Map(vec![("url", url)]))),
        ("sts_endpoint", text(&draft.sts_endpoint)),
    ];
    settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn credentials(draft: &Draft) -> Yaml {
    let mut all = Vec::new();
    if let Some(keys) = &draft.keys {
        all.push(("access_key_id", Yaml::Variable(keys.id.clone())));
        all.push(("secret_access_key", Yaml::Variable(keys.secret.clone())));
        all.extend(keys.token.iter().map(|token| ("session_token", Yaml::Variable(token.clone()))));
    }
    if let Some(role) = &draft.role {
        let mut own = vec![("role_arn", Yaml::Text(role.arn.clone()))];
        own.extend(role.external_id.iter().map(|id| ("external_id", Yaml::Text(id.clone()))));
        own.extend(role.session_name.iter().map(|name| ("session_name", Yaml::Text(name.clone()))));
        all.push(("assume_role", Yaml::Map(own)));
    }
    if all.is_empty() { Yaml::Literal("default") } else { Yaml::Map(all) }
}

fn write_map(out: &mut String, indent: &str, map: Vec<(&'static str, Yaml)>) {
    for (key, value) in map {
        let _ = write!(out, "{indent}{key}:");
        match value {
            Yaml::Text(text) => {
                let _ = writeln!(out, " {}", scalar(&text));
            }
            Yaml::Variable(name) => {
                let _ = writeln!(out, " {{env: {name}}}");
            }
            Yaml::Literal(text) => {
                let _ = writeln!(out, " {text}");
            }
            Yaml::Map(map) => {
                out.push('\n');
                write_map(out, &format!("{indent}  "), map);
            }
            // Kong knows one kind of failure only: whatever Lambda itself calls unhandled.
            Yaml::Rule(status) => {
                let _ = writeln!(
                    out,
                    "\n{indent}  - kind: [unhandled, timeout, out-of-memory]\n{indent}    status: {status}\n{indent}    body: payload"
                );
            }
        }
    }
}

fn lost(fault: &Fault) -> String {
    let place = fault.place.map(|place| format!("line {}: ", place.line)).unwrap_or_default();
    let key = if fault.key.is_empty() { String::new() } else { format!("{}: ", fault.key) };
    format!("note: {place}{key}{}", fault.message)
}

fn comment(out: &mut String, indent: &str, text: &str) {
    let _ = writeln!(out, "{indent}# {}", one_line(text));
}

/// A scalar that every reader of YAML takes for this text, and for text.
fn scalar(text: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '*' | '+' | '=' | '@' | ' ');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let ends = !text.ends_with([' ', ':']);
    if begins && ends && text.chars().all(is_plain) && !text.contains(": ") && !is_another_type(text) {
        return text.to_owned();
    }
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if !text.contains(is_odd) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            odd if is_odd(odd) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(odd));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// What some reader takes for a number, a moment, a boolean or nothing.
fn is_another_type(text: &str) -> bool {
    let word =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    let number = text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, '_' | '.' | '-' | '+' | ':' | 'x' | 'o' | 'T' | 'Z' | ' '));
    word || number
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Found, Node};

    #[test]
    fn a_scalar_is_read_as_the_text_that_it_was() {
        for (text, written) in [
            ("orders", "orders"),
            ("Place an order", "Place an order"),
            ("arn:aws:lambda:us-east-1:123456789012:function:f", "arn:aws:lambda:us-east-1:123456789012:function:f"),
            ("/orders/*", "/orders/*"),
            ("*.example.com", "'*.example.com'"),
            ("123456789012", "'123456789012'"),
            ("1e3", "'1e3'"),
            ("12:30", "'12:30'"),
            ("2026-01-01", "'2026-01-01'"),
            ("No", "'No'"),
            ("null", "'null'"),
            ("~", "'~'"),
            ("", "''"),
            ("a: b", "'a: b'"),
            ("a:", "'a:'"),
            ("a # b", "'a # b'"),
            ("it's", "'it''s'"),
            (" a ", "' a '"),
            ("$LATEST", "'$LATEST'"),
            ("{a}", "'{a}'"),
            ("größe", "'größe'"),
            ("a\nb\t\"c\\\u{1b}\u{2028}", "\"a\\nb\\t\\\"c\\\\\\u001b\\u2028\""),
        ] {
            assert_eq!(scalar(text), written);
            let file = format!("{}: {}\n", scalar(if text.is_empty() { "k" } else { text }), scalar(text));
            let node = Node::parse_all(&file, &mut Found::default()).unwrap().remove(0);
            assert_eq!(node.entries()[0].node.text(), Some(text), "{file}");
        }
    }

    #[test]
    fn a_comment_stays_one_whatever_is_in_it() {
        let mut out = String::new();
        comment(&mut out, "  ", "a\nb: c\u{85}d");
        assert_eq!(out, "  # a b: c d\n");
    }
}
