//! Where log lines go: standard error, at once, or on a worker when it has nothing else to do.
//!
//! A busy worker would spend a call of the system for each line. It keeps them until it goes idle, which under load is many
//! times in a millisecond, and writes them together. Nobody waits until they are read.

use std::{
    cell::RefCell,
    io::{self, Stderr, Write},
    sync::LazyLock,
    time::Duration,
};

use super::{losses::Loss, outlet::Outlet};

/// As many bytes are never kept.
const MOST: usize = 32 * 1024;

static OUTLET: LazyLock<Outlet<Stderr>> = LazyLock::new(|| Outlet::new(io::stderr()));

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// A worker's lines. Those that are left when its thread ends are written then.
struct Kept(Vec<u8>);

/// Keeps this thread's lines from now on; somebody must call [`flush`] whenever the thread goes idle.
pub fn keep() {
    KEPT.set(Some(Kept(Vec::with_capacity(MOST))));
}

/// Writes the lines that this thread has kept.
pub fn flush() {
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            kept.write();
        }
    });
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

impl Kept {
    fn write(&mut self) {
        if !self.0.is_empty() {
            OUTLET.put(&self.0);
            self.0.clear();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.write();
    }
}

/// A writer of whole lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer;

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = KEPT.try_with(|kept| match &mut *kept.borrow_mut() {
            Some(kept) => {
                if kept.0.len() + line.len() > MOST {
                    kept.write();
                }
                kept.0.extend_from_slice(line);
                true
            }
            None => false,
        });
        match kept {
            Ok(true) => {}
            // Not a worker, or one whose thread is ending.
            Ok(false) | Err(_) => OUTLET.put(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Option<usize> {
        KEPT.with_borrow(|kept| kept.as_ref().map(|kept| kept.0.len()))
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
                assert!(kept().is_some_and(|bytes| bytes <= MOST));
            }
            Ok::<_, ()>((before, after))
        });
        assert_eq!(worker.join().ok(), Some(Ok((Some(190), Some(0)))));
        assert_eq!(kept(), None, "no other thread keeps anything");
    }
}
