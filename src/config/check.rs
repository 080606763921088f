//! The form of the file against the table of settings: unknown and missing keys, wrong types.

use super::{
    fault::Found,
    node::{Node, Value},
    shape::{Key, Kind},
};

/// Checks a map against its keys, and everything below it.
pub(super) fn section(node: &Node, keys: &[Key], path: &str, found: &mut Found) {
    let Value::Map(entries) = &node.value else {
        found.add(Some(node.place), path, format_args!("{}: expected {}", is(node), known(keys)));
        return;
    };
    for entry in entries {
        let path = join(path, &entry.key);
        match keys.iter().find(|key| key.name == entry.key) {
            Some(key) => value(&entry.node, &key.kind, &path, found),
            None => found.add(Some(entry.place), path, unknown(&entry.key, keys)),
        }
    }
    for key in keys.iter().filter(|key| key.required) {
        if node.get(key.name).is_none() {
            found.add(Some(node.place), join(path, key.name), "is missing");
        }
    }
}

fn value(node: &Node, kind: &Kind, path: &str, found: &mut Found) {
    match (kind, &node.value) {
        (Kind::Section(_) | Kind::Named(_), Value::Null) => {}
        (_, Value::Null) => found.add(Some(node.place), path, "is empty: give it a value, or leave it out"),
        (Kind::Section(keys), _) => section(node, keys, path, found),
        (Kind::Named(keys), Value::Map(entries)) => {
            for entry in entries {
                section(&entry.node, keys, &join(path, &entry.key), found);
            }
        }
        (Kind::WordOr(word, _), Value::Text(text)) if text == word => {}
        (Kind::WordOr(_, keys), Value::Map(_)) => section(node, keys, path, found),
        (Kind::Secret, Value::Map(entries)) => {
            let one = matches!(entries.as_slice(), [entry] if matches!(entry.key.as_str(), "env" | "file")
                && entry.node.text().is_some_and(|text| !text.is_empty()));
            if !one {
                found.add(Some(node.place), path, "is no secret: expected text, `{env: NAME}` or `{file: PATH}`");
            }
        }
        (Kind::Sections(keys), Value::List(items)) => {
            for (n, item) in items.iter().enumerate() {
                section(item, keys, &format!("{path}[{n}]"), found);
            }
        }
        (Kind::Texts, Value::Map(entries)) => {
            for entry in entries.iter().filter(|entry| entry.node.text().is_none()) {
                let message = format_args!("{}: expected text", is(&entry.node));
                found.add(Some(entry.node.place), join(path, &entry.key), message);
            }
        }
        (Kind::Json, _) | (Kind::Pointer, Value::Text(_)) => {}
        (Kind::List, Value::List(items)) => {
            for item in items.iter().filter(|item| item.text().is_none()) {
                found.add(Some(item.place), path, format_args!("{}: expected text", is(item)));
            }
        }
        (Kind::Object, Value::Map(_)) => {}
        (Kind::Choice(words), Value::Text(text)) => {
            if !words.contains(&text.as_str()) {
                found.add(Some(node.place), path, format_args!("`{text}` is none of {}", quoted(words)));
            }
        }
        (Kind::Boolean, Value::Text(text)) => {
            if !matches!(text.as_str(), "true" | "false") {
                found.add(Some(node.place), path, format_args!("`{text}` is neither `true` nor `false`"));
            }
        }
        (Kind::Integer { least, most }, Value::Text(text)) => {
            if !text.parse::<u64>().is_ok_and(|number| (*least..=*most).contains(&number)) {
                found.add(
                    Some(node.place),
                    path,
                    format_args!("`{text}` is not a whole number from {least} to {most}"),
                );
            }
        }
        (Kind::Share, Value::Text(text)) => {
            if !text.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share)) {
                found.add(Some(node.place), path, format_args!("`{text}` is not a number from 0 to 1"));
            }
        }
        (Kind::Duration, Value::Text(text)) => {
            if humantime::parse_duration(text).is_err() {
                found.add(
                    Some(node.place),
                    path,
                    format_args!("`{text}` is not a duration: expected one such as `500ms`, `10s` or `30m`"),
                );
            }
        }
        (Kind::Text | Kind::List | Kind::Secret | Kind::Object, Value::Text(text)) => {
            if text.is_empty() {
                found.add(Some(node.place), path, "is empty: give it a value, or leave it out");
            }
        }
        (Kind::WordOr(word, keys), _) => {
            found.add(Some(node.place), path, format_args!("{}: expected `{word}` or {}", is(node), known(keys)));
        }
        (Kind::Named(_), _) => found.add(Some(node.place), path, format_args!("{}: expected names", is(node))),
        (Kind::List | Kind::Sections(_), _) => {
            found.add(Some(node.place), path, format_args!("{}: expected a list", is(node)));
        }
        (Kind::Texts, _) => {
            found.add(Some(node.place), path, format_args!("{}: expected names with a text each", is(node)));
        }
        (
            Kind::Text
            | Kind::Duration
            | Kind::Share
            | Kind::Integer { .. }
            | Kind::Boolean
            | Kind::Choice(_)
            | Kind::Secret
            | Kind::Pointer
            | Kind::Object,
            Value::List(_) | Value::Map(_),
        ) => found.add(Some(node.place), path, format_args!("{}: expected a single value", is(node))),
    }
}

fn is(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "is empty",
        Value::Text(_) => "is a single value",
        Value::List(_) => "is a list",
        Value::Map(_) => "is a map",
    }
}

fn known(keys: &[Key]) -> String {
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    format!("a map of {}", quoted(&names))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn unknown(name: &str, keys: &[Key]) -> String {
    let close = keys
        .iter()
        .map(|key| (strsim::damerau_levenshtein(name, key.name), key.name))
        .filter(|(distance, key)| *distance <= key.len().div_ceil(3))
        .min();
    match close {
        Some((_, close)) => format!("is not a setting: did you mean `{close}`?"),
        None => {
            let names: Vec<_> = keys.iter().map(|key| key.name).collect();
            format!("is not a setting: expected one of {}", quoted(&names))
        }
    }
}

/// A key below another.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
