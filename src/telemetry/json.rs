//! Log lines as JSON, an object a line.
//!
//! The subscriber's own JSON is made by serde, field by field through a generic map, which was a tenth of the CPU time of a
//! call with its one line. This makes the same object in a buffer of its own, as each piece that is handed to the
//! subscriber's is a call through two pointers.

use std::{
    cell::Cell,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// `{"timestamp":…,"level":…,` and the event's fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // None is there for a value that logs while it is written, and when the thread ends.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        let written = put(&mut line, &mut writer, event);
        let _ = LINE.try_with(|kept| kept.set(line));
        written
    }
}

thread_local! {
    /// The room of the last line.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
    /// The last second that was written, as text: a busy thread writes thousands of lines in each.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
}

fn put(line: &mut String, writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    line.clear();
    line.push_str("{\"timestamp\":\"");
    timestamp(line, SystemTime::now())?;
    line.push_str("\",\"level\":\"");
    line.push_str(event.metadata().level().as_str());
    line.push('"');
    let mut fields = Fields { line, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    line.push_str("}\n");
    writer.write_str(line)
}

struct Fields<'a> {
    line: &'a mut String,
    result: fmt::Result,
}

impl Fields<'_> {
    fn key(&mut self, field: &Field) -> &mut String {
        self.line.push_str(",\"");
        // A raw identifier is spelled without its prefix.
        self.line.push_str(field.name().strip_prefix("r#").unwrap_or(field.name()));
        self.line.push_str("\":");
        self.line
    }

    fn string(&mut self, field: &Field, value: &str) {
        let written = string(self.key(field), value);
        self.result = self.result.and(written);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.key(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field).push_str(if value { "true" } else { "false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no number for what is none.
        let text = if value.is_finite() { value.to_string() } else { "null".to_owned() };
        self.key(field).push_str(&text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.string(field, &format!("{value:?}"));
    }
}

/// A JSON string. Most need no escape.
fn string(line: &mut String, text: &str) -> fmt::Result {
    // Without a way out of the loop, many bytes are looked at together.
    if text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\')) {
        line.push('"');
        line.push_str(text);
        line.push('"');
    } else {
        line.push_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?);
    }
    Ok(())
}

/// RFC 3339 in UTC, with microseconds.
fn timestamp(line: &mut String, now: SystemTime) -> fmt::Result {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (last, mut text) = SECOND.get();
    if last != since.as_secs() {
        let whole = UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs());
        let written = humantime::format_rfc3339_seconds(whole).to_string();
        // `2026-01-31T12:00:00Z`, without the Z.
        text = written.as_bytes().first_chunk().copied().ok_or(fmt::Error)?;
        SECOND.set((since.as_secs(), text));
    }
    line.push_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?);
    line.push('.');
    // A digit before the six keeps the zeros of a small number.
    line.push_str(itoa::Buffer::new().format(1_000_000 + since.subsec_micros()).get(1..).unwrap_or_default());
    line.push('Z');
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, sync::Mutex, time::Duration};

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let (reader, writer) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().event_format(Lines).with_writer(Mutex::new(writer)).finish();
        tracing::subscriber::with_default(subscriber, || {
            let text = "a \"quote\", a \\, a\nline and caf\u{e9}";
            tracing::info!(text, number = 7_u64, less = -7, right = true, part = 0.5, none = f64::NAN, r#type = ?Some("x"), "call");
            tracing::warn!(missing = None::<u64>, "again");
        });
        let written = io::read_to_string(reader).unwrap();
        let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
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
}
