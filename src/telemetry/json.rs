//! Log lines as JSON, an object a line.
//!
//! The subscriber's own JSON is made by serde, field by field through a generic map, which was a tenth of the CPU time of a
//! call with its one line. This writes the same object straight into the subscriber's buffer.

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
        writer.write_str("{\"timestamp\":\"")?;
        timestamp(&mut writer, SystemTime::now())?;
        write!(writer, "\",\"level\":\"{}\"", event.metadata().level())?;
        let mut fields = Fields { writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.writer.write_str("}\n")
    }
}

struct Fields<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.key(field).and_then(|()| value(&mut self.writer));
        }
    }

    fn key(&mut self, field: &Field) -> fmt::Result {
        self.writer.write_str(",\"")?;
        // A raw identifier is spelled without its prefix.
        self.writer.write_str(field.name().strip_prefix("r#").unwrap_or(field.name()))?;
        self.writer.write_str("\":")
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, |writer| string(writer, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no number for what is none.
        self.put(field, |writer| if value.is_finite() { write!(writer, "{value}") } else { writer.write_str("null") });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |writer| string(writer, &format!("{value:?}")));
    }
}

/// A JSON string. Most need no escape.
fn string(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        writer.write_char('"')?;
        writer.write_str(text)?;
        return writer.write_char('"');
    }
    writer.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

thread_local! {
    /// The last second that was written, as text: a busy thread writes thousands of lines in each.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
}

/// RFC 3339 in UTC, with microseconds.
fn timestamp(writer: &mut Writer<'_>, now: SystemTime) -> fmt::Result {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (last, mut text) = SECOND.get();
    if last != since.as_secs() {
        let whole = UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs());
        let written = humantime::format_rfc3339_seconds(whole).to_string();
        // `2026-01-31T12:00:00Z`, without the Z.
        text = written.as_bytes().first_chunk().copied().ok_or(fmt::Error)?;
        SECOND.set((since.as_secs(), text));
    }
    writer.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
    write!(writer, ".{:06}Z", since.subsec_micros())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Lines).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let text = "a \"quote\", a \\, a\nline and caf\u{e9}";
            tracing::info!(text, number = 7_u64, less = -7, right = true, part = 0.5, none = f64::NAN, r#type = ?Some("x"), "call");
            tracing::warn!(missing = None::<u64>, "again");
        });
        let written = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
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
