//! The table of settings as JSON Schema, for editors, and as Markdown, for the documentation.

use serde_json::{Map, Value, json};

use super::shape::{FILE, Key, Kind};

/// JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> Value {
    let mut schema = object(FILE);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!("lambda-policy configuration"));
    }
    schema
}

/// Every setting as a row of a Markdown table: key, default, meaning.
pub fn table() -> String {
    let mut rows = String::from("| setting | default | meaning |\n|---|---|---|\n");
    for key in FILE {
        match &key.kind {
            // What a policy and the defaults share is told once, with the policies.
            Kind::Section(_) if key.name == "defaults" => row(&mut rows, key, key.name),
            _ => walk(&mut rows, key, key.name),
        }
    }
    rows
}

fn walk(rows: &mut String, key: &Key, path: &str) {
    match &key.kind {
        Kind::Section(keys) => {
            for key in *keys {
                walk(rows, key, &format!("{path}.{}", key.name));
            }
        }
        Kind::WordOr(_, keys) => {
            row(rows, key, path);
            for key in *keys {
                walk(rows, key, &format!("{path}.{}", key.name));
            }
        }
        Kind::Sections(keys) => {
            row(rows, key, path);
            for key in *keys {
                walk(rows, key, &format!("{path}[].{}", key.name));
            }
        }
        Kind::Named(keys) => {
            for key in *keys {
                walk(rows, key, &format!("{path}.*.{}", key.name));
            }
        }
        _ => row(rows, key, path),
    }
}

fn row(rows: &mut String, key: &Key, path: &str) {
    let default = match (key.required, key.default) {
        (true, _) => "required".to_owned(),
        (false, "") => String::new(),
        (false, default) if default.contains(' ') => default.to_owned(),
        (false, default) => format!("`{default}`"),
    };
    let choices = match &key.kind {
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            format!(" One of {}.", words.join(", "))
        }
        Kind::Secret => " Text, `{env: NAME}` or `{file: PATH}`.".to_owned(),
        _ => String::new(),
    };
    rows.push_str(&format!("| `{path}` | {default} | {}{choices} |\n", key.doc));
}

fn object(keys: &[Key]) -> Value {
    let properties: Map<_, _> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(key.doc));
        // Some defaults are said in words, which an editor cannot put into the file.
        if !key.default.is_empty() && !key.default.contains(' ') {
            let default = serde_json::from_str(key.default).unwrap_or_else(|_| json!(key.default));
            map.insert("default".to_owned(), default);
        }
    }
    schema
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": ["string", "number"]}),
        Kind::Duration => json!({"type": "string", "pattern": "^[0-9]+ ?[a-z]+( ?[0-9]+ ?[a-z]+)*$"}),
        Kind::Integer { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Kind::Pointer => json!({"type": "string", "pattern": "^(/.*)?$"}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Secret => json!({"oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "object", "properties": {"env": {"type": "string"}}, "required": ["env"], "additionalProperties": false},
            {"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"], "additionalProperties": false},
        ]}),
        Kind::List => {
            json!({"type": ["array", "string", "number"], "items": {"type": ["string", "number"]}})
        }
        Kind::Texts => json!({"type": "object", "additionalProperties": {"type": ["string", "number"]}}),
        Kind::Sections(keys) => json!({"type": "array", "items": object(keys)}),
        Kind::Json => json!({}),
        Kind::Object => json!({"type": ["object", "string"]}),
        Kind::Section(keys) => object(keys),
        Kind::WordOr(word, keys) => json!({"oneOf": [{"const": word}, object(keys)]}),
        Kind::Named(keys) => json!({"type": "object", "additionalProperties": object(keys)}),
    }
}
