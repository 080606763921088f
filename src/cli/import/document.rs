//! A document's text as nodes that know their place, whether it is YAML or JSON.

use std::borrow::Cow;

use crate::config::{Fault, Found, Node};

/// The documents of a text, and what in it is odd but no reason to stop.
pub(super) fn read(text: &str) -> Result<(Vec<Node>, Vec<Fault>), Vec<Fault>> {
    let mut found = Found::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = text.trim_start().starts_with(['{', '[']);
    let text = if is_json { json(text) } else { Cow::Borrowed(text) };
    match Node::parse_all(&text, &mut found) {
        Some(nodes) => Ok((nodes, found.into_list())),
        None => Err(found.into_list()),
    }
}

/// JSON as YAML: without tabs to indent by, and with characters in the place of surrogate pairs.
fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(['\t', '\\']) {
        return Cow::Borrowed(text);
    }
    let mut yaml = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\t', '\\']) {
        let (before, special) = rest.split_at(at);
        yaml.push_str(before);
        if let Some(character) = pair(special) {
            yaml.push(character);
            rest = special.get(12..).unwrap_or_default();
        } else if let Some(after) = special.strip_prefix('\t') {
            yaml.push(' ');
            rest = after;
        } else {
            // The character behind a backslash is a part of it.
            let end = special.char_indices().nth(2).map_or(special.len(), |(end, _)| end);
            let (escape, after) = special.split_at(end);
            yaml.push_str(escape);
            rest = after;
        }
    }
    yaml.push_str(rest);
    Cow::Owned(yaml)
}

/// The character of the surrogate pair that a text begins with.
fn pair(text: &str) -> Option<char> {
    let unit = |at: usize| u16::from_str_radix(text.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok();
    char::decode_utf16([unit(0)?, unit(6)?]).next()?.ok().filter(|character| character.len_utf16() == 2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_though_yaml_knows_neither_its_tabs_nor_its_surrogates() {
        let (nodes, faults) = read("\u{feff}{\n\t\"a\": {\n\t\t\"b\": \"c\"\n\t}\n}").unwrap();
        assert_eq!(nodes[0].entries()[0].node.entries()[0].node.text(), Some("c"));
        assert_eq!(faults, []);
        let text = r#"{"a": "\ud83d\ude00 \/ \u00e9 \\ud83d\\ude00 \t\u0041"}"#;
        let (nodes, _) = read(text).unwrap();
        assert_eq!(nodes[0].entries()[0].node.text(), Some("\u{1f600} / \u{e9} \\ud83d\\ude00 \tA"));
    }

    #[test]
    fn what_is_odd_is_told_and_what_is_broken_is_an_error() {
        let (nodes, faults) = read("a: !!binary x\nb: c\n---\nd: e\n").unwrap();
        assert_eq!((nodes.len(), faults.len()), (2, 1));
        assert_eq!(read("a: [").unwrap_err().len(), 1);
    }
}
