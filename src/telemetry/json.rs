//! Log lines as JSON, an object a line.
//!
//! The subscriber's own JSON is made by serde, field by field through a generic map, and copied twice, which was a tenth of the
//! CPU time of a call with its one line. This puts the same object where the writer keeps its lines.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::writer;

/// `{"timestamp":…,"level":…,` and the event's fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        writer::line(|line| put(line, event));
    }
}

thread_local! {
    /// The last second that was written, as text: a busy thread writes thousands of lines in each.
    static SECOND: Cell<(u64, [u8; SECONDS])> = const { Cell::new((u64::MAX, [b'?'; SECONDS])) };
}

/// As many bytes has a time without its fraction: `2026-01-31T12:00:00`.
const SECONDS: usize = 19;

fn put(line: &mut Vec<u8>, event: &Event<'_>) {
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line, SystemTime::now());
    line.extend_from_slice(b"\",\"level\":\"");
    line.extend_from_slice(event.metadata().level().as_str().as_bytes());
    line.push(b'"');
    event.record(&mut Fields { line });
    line.extend_from_slice(b"}\n");
}

struct Fields<'a> {
    line: &'a mut Vec<u8>,
}

impl Fields<'_> {
    fn value(&mut self, field: &Field, value: &[u8]) {
        self.key(field, value.len());
        self.line.extend_from_slice(value);
    }

    /// A string. Most need no escape.
    fn string(&mut self, field: &Field, value: &str) {
        self.key(field, value.len() + 2);
        if is_plain(value.as_bytes()) {
            self.line.push(b'"');
            self.line.extend_from_slice(value.as_bytes());
            self.line.push(b'"');
        } else {
            // Only a writer can fail, and this one does not.
            let _ = serde_json::to_writer(&mut *self.line, value);
        }
    }

    /// A key, and room for its value.
    fn key(&mut self, field: &Field, room: usize) {
        // A raw identifier is spelled without its prefix.
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        self.line.reserve(name.len() + room + 4);
        self.line.extend_from_slice(b",\"");
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, if value { b"true" } else { b"false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no number for what is none.
        let text = if value.is_finite() { value.to_string() } else { "null".to_owned() };
        self.value(field, text.as_bytes());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.string(field, &format!("{value:?}"));
    }
}

/// Whether a string has nothing to escape. Of a piece of fixed size the bytes are looked at together, as there is no way out.
fn is_plain(text: &[u8]) -> bool {
    fn all<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> bool {
        bytes.into_iter().fold(true, |plain, byte| plain & (*byte >= 0x20) & (*byte != b'"') & (*byte != b'\\'))
    }
    // The last piece begins within the one before, if the whole is no multiple of it.
    match (text.last_chunk::<16>(), text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(last), ..) => text.as_chunks::<16>().0.iter().fold(all(last), |plain, piece| plain & all(piece)),
        (None, Some(first), Some(last)) => all(first) & all(last),
        _ => all(text),
    }
}

/// RFC 3339 in UTC, with microseconds.
fn timestamp(line: &mut Vec<u8>, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (last, mut text) = SECOND.get();
    if last != since.as_secs() {
        let whole = UNIX_EPOCH + Duration::from_secs(since.as_secs());
        let written = humantime::format_rfc3339_seconds(whole).to_string();
        // Without the Z. A year of five digits has no place in RFC 3339.
        text = written.as_bytes().first_chunk().copied().unwrap_or(text);
        SECOND.set((since.as_secs(), text));
    }
    line.extend_from_slice(&text);
    // A digit before the six keeps the zeros of a small number.
    let mut micros = itoa::Buffer::new();
    let micros = micros.format(1_000_000 + since.subsec_micros()).as_bytes();
    line.push(b'.');
    line.extend_from_slice(micros.get(1..).unwrap_or_default());
    line.push(b'Z');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use serde_json::{Value, json};
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    /// What is logged meanwhile.
    fn written(log: impl FnOnce() + Send) -> Vec<Value> {
        let lines = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                writer::keep();
                tracing::subscriber::with_default(Registry::default().with(Lines), log);
                writer::taken()
            });
            worker.join().unwrap()
        });
        lines.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let lines = written(|| {
            let text = "a \"quote\", a \\, a\nline and caf\u{e9}";
            tracing::info!(text, number = 7_u64, less = -7, right = true, part = 0.5, none = f64::NAN, r#type = ?Some("x"), "call");
            tracing::warn!(missing = None::<u64>, "again");
        });
        let mut first = lines[0].clone();
        let time = first.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(humantime::parse_rfc3339(time.as_str().unwrap()).unwrap().elapsed().unwrap() < Duration::from_secs(60));
        let expected = json!({
            "level": "INFO", "message": "call", "text": "a \"quote\", a \\, a\nline and caf\u{e9}", "number": 7, "less": -7,
            "right": true, "part": 0.5, "none": null, "type": "Some(\"x\")",
        });
        assert_eq!(first, expected);
        assert_eq!(lines[1]["message"], "again");
        assert!(lines[1].get("missing").is_none(), "what is not there has no key");
    }

    #[test]
    fn what_has_to_be_escaped_is_found_at_every_place() {
        for length in 0..50 {
            let plain = "\u{e9}~ !x".chars().cycle().take(length).collect::<String>();
            assert!(is_plain(plain.as_bytes()), "{plain}");
            for (at, _) in plain.char_indices() {
                for other in ["\"", "\\", "\n", "\u{0}", "\u{1f}"] {
                    let mut text = plain.clone();
                    text.insert_str(at, other);
                    assert!(!is_plain(text.as_bytes()), "{text:?}");
                }
            }
        }
    }
}
