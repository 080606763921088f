//! Where log lines go: standard error, at once, or on a worker when it has nothing else to do.
//!
//! A busy worker would spend a call of the system for each line. It keeps them until it goes idle, which under load is many
//! times in a millisecond, and writes them together. Nobody waits until they are read.

use std::{
    cell::Cell,
    io::{self, Stderr, Write},
    sync::LazyLock,
    time::Duration,
};

use super::{losses::Loss, outlet::Outlet};

/// With as many bytes a worker's lines are written even if it is not idle.
const MOST: usize = 32 * 1024;
/// The room of a line that begins below that; a longer one makes more.
const LINE: usize = 4 * 1024;

static OUTLET: LazyLock<Outlet<Stderr>> = LazyLock::new(|| Outlet::new(io::stderr()));

thread_local! {
    static KEPT: Cell<Option<Kept>> = const { Cell::new(None) };
}

/// A worker's lines. Those that are left when its thread ends are written then.
struct Kept(Vec<u8>);

/// Keeps this thread's lines from now on; somebody must call [`flush`] whenever the thread goes idle.
pub fn keep() {
    KEPT.set(Some(Kept(Vec::with_capacity(MOST + LINE))));
}

/// Writes the lines that this thread has kept.
pub fn flush() {
    if let Some(mut kept) = KEPT.take() {
        kept.write();
        KEPT.set(Some(kept));
    }
}

/// Has a whole line put where it is to stay, so that it is copied no more.
pub(super) fn line(put: impl FnOnce(&mut Vec<u8>)) {
    // There are none if this is no worker, if its thread is ending, and for what is logged while a line is put.
    match KEPT.try_with(Cell::take) {
        Ok(Some(mut kept)) => {
            put(&mut kept.0);
            if kept.0.len() >= MOST {
                kept.write();
            }
            KEPT.set(Some(kept));
        }
        Ok(None) | Err(_) => {
            let mut line = Vec::new();
            put(&mut line);
            OUTLET.put(&line);
        }
    }
}

/// Writes a line for people, at the end of what is logged.
pub fn say(text: &str) {
    OUTLET.put(format!("{text}\n").as_bytes());
}

/// Waits until what was logged is written, or for so long.
pub fn finish(within: Duration) {
    OUTLET.finish(within);
}

/// The lines that nobody will see.
pub(super) fn lost() -> Loss {
    OUTLET.lost.read()
}

/// What this thread keeps, as text, which is not written any more.
#[cfg(test)]
pub(super) fn taken() -> String {
    KEPT.take().map(|mut kept| String::from_utf8_lossy(&std::mem::take(&mut kept.0)).into_owned()).unwrap_or_default()
}

impl Kept {
    fn write(&mut self) {
        if !self.0.is_empty() {
            OUTLET.put(&self.0);
            self.0.clear();
        }
    }

    /// If a value has panicked while it was put, there is a line without an end.
    fn cut(&mut self) {
        let whole = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.0.truncate(whole);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.cut();
        self.write();
    }
}

/// A writer of whole lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer;

impl Write for Writer {
    fn write(&mut self, whole: &[u8]) -> io::Result<usize> {
        line(|kept| kept.extend_from_slice(whole));
        Ok(whole.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Option<usize> {
        let kept = KEPT.take();
        let bytes = kept.as_ref().map(|kept| kept.0.len());
        KEPT.set(kept);
        bytes
    }

    #[test]
    fn a_worker_keeps_its_lines_until_it_is_idle_and_never_many() {
        let worker = std::thread::spawn(|| {
            keep();
            let line = b"{\"message\":\"kept\"}\n";
            for _ in 0..10 {
                Writer.write_all(line).map_err(drop)?;
            }
            let before = kept();
            flush();
            let after = kept();
            for _ in 0..3 * MOST / line.len() {
                Writer.write_all(line).map_err(drop)?;
                assert!(kept().is_some_and(|bytes| bytes < MOST));
            }
            Ok::<_, ()>((before, after))
        });
        assert_eq!(worker.join().ok(), Some(Ok((Some(190), Some(0)))));
        assert_eq!(kept(), None, "no other thread keeps anything");
    }

    #[test]
    fn a_line_that_is_put_within_another_does_not_end_up_in_it() {
        let worker = std::thread::spawn(|| {
            keep();
            line(|outer| {
                outer.extend_from_slice(b"out");
                line(|inner| inner.extend_from_slice(b"inner\n"));
                outer.extend_from_slice(b"er\n");
            });
            taken()
        });
        assert_eq!(worker.join().ok().as_deref(), Some("outer\n"));
    }

    #[test]
    fn half_a_line_is_none() {
        for (kept, whole) in [("", ""), ("half", ""), ("one\ntwo\n", "one\ntwo\n"), ("one\nhal", "one\n")] {
            let mut kept = Kept(kept.as_bytes().to_vec());
            kept.cut();
            assert_eq!(std::mem::take(&mut kept.0), whole.as_bytes());
        }
    }
}
