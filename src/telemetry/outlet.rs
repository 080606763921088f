//! A way out for lines that may be stopped up for as long as its reader likes: nobody waits for it but a thread of its own.
//!
//! Who has lines writes them, as far as they are taken at once. What is not waits, up to [`MOST`], and the thread writes it;
//! it sleeps in the kernel until there is room. Lines beyond that are dropped, whole, and counted. A line that is half written
//! goes on before any other one begins.

use std::{
    io::{IoSlice, IsTerminal},
    mem,
    os::fd::AsFd,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::{Errno, write},
};

use super::losses::Losses;

/// As much as a pipe that is writable takes without keeping its writer: `PIPE_BUF`.
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };
/// As many bytes wait, beside those that the thread has in hand.
const MOST: usize = 256 * 1024;
/// How often it is looked whether all is written at the end.
const LOOK: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Debug)]
pub(super) struct Outlet<F> {
    to: F,
    takes: Takes,
    /// Whether it must be asked before each piece, as the kernel cannot be told not to wait.
    asked: AtomicBool,
    state: Mutex<State>,
    work: Condvar,
    pub lost: Losses,
}

/// What is known of where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// A file, which takes everything.
    All,
    /// A pipe or socket, which may be full.
    Now,
    /// A terminal, which may keep its writer whatever it says: only the thread writes there.
    Late,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody writes, and nobody else may.
    busy: bool,
    /// What was not taken of what was being written. It comes before everything else, as it may begin within a line.
    rest: Vec<u8>,
    /// Lines of others.
    waiting: Vec<u8>,
    /// Whether what was taken ends within a line.
    within: bool,
    /// Whether it could not be written the last time, and not for want of room.
    fails: bool,
    /// Lines that were lost, which nobody was told.
    untold: u64,
    /// Whether the thread runs.
    thread: bool,
}

impl<F: AsFd + Send + Sync + 'static> Outlet<F> {
    pub(super) fn new(to: F) -> Self {
        let file = fstat(&to).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let takes = match (to.as_fd().is_terminal(), file) {
            (true, _) => Takes::Late,
            (false, true) => Takes::All,
            (false, false) => Takes::Now,
        };
        Self {
            to,
            takes,
            asked: AtomicBool::new(false),
            state: Mutex::default(),
            work: Condvar::new(),
            lost: Losses::default(),
        }
    }

    /// Writes whole lines now, soon, or never.
    pub(super) fn put(&'static self, lines: &[u8]) {
        let mut state = self.state();
        if state.busy || state.has_backlog() || self.takes == Takes::Late {
            self.leave(&mut state, lines);
        } else {
            state = self.write(state, lines, false);
            // What others have left meanwhile, once: nobody is to write for all of them without end.
            if state.rest.is_empty() && !state.waiting.is_empty() {
                let left = mem::take(&mut state.waiting);
                state = self.write(state, &left, false);
            }
        }
        if !state.busy && state.has_work() {
            if !state.thread {
                let thread = thread::Builder::new().name("log".to_owned());
                // Without one what waits goes out with a later line.
                state.thread = thread.spawn(|| self.work()).is_ok();
            }
            self.work.notify_one();
        }
    }

    /// Waits until everything is written, or for so long.
    pub(super) fn finish(&self, within: Duration) {
        let began = Instant::now();
        let unfinished = || {
            let state = self.state();
            state.busy || state.has_work()
        };
        while unfinished() && began.elapsed() < within {
            thread::sleep(LOOK);
        }
    }

    /// The thread: it writes what waits, however long that takes.
    fn work(&self) {
        let mut state = self.state();
        loop {
            let idle = |state: &mut State| state.busy || !state.has_work();
            state = self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            let mut bytes = mem::take(&mut state.rest);
            bytes.append(&mut state.waiting);
            if !state.fails && state.untold > 0 {
                let lines = mem::take(&mut state.untold);
                state.busy = true;
                drop(state);
                // It comes after those lines that still had room, which is where others are missing.
                tracing::warn!(lines, "log lines are lost, as standard error was not read in time");
                state = self.state();
            }
            state = self.write(state, &bytes, true);
        }
    }

    /// Writes, and keeps what must be written later.
    fn write<'a>(&'a self, mut state: MutexGuard<'a, State>, bytes: &[u8], patiently: bool) -> MutexGuard<'a, State> {
        state.busy = true;
        drop(state);
        let (taken, fails) = self.attempt(bytes, patiently);
        let mut state = self.state();
        let (done, rest) = bytes.split_at(taken);
        if let Some(last) = done.last() {
            state.within = *last != b'\n';
        }
        (state.busy, state.fails) = (false, fails);
        let goes_on = match (fails, state.within) {
            (false, _) => rest.len(),
            (true, true) => rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1),
            (true, false) => 0,
        };
        let (kept, lost) = rest.split_at(goes_on);
        state.rest.extend_from_slice(kept);
        self.lose(&mut state, lost.split_inclusive(|byte| *byte == b'\n').count());
        state
    }

    /// How many bytes were taken, and whether more can not be written at all.
    fn attempt(&self, bytes: &[u8], patiently: bool) -> (usize, bool) {
        let mut taken = 0;
        while let Some(rest @ [_, ..]) = bytes.get(taken..) {
            let some = match (self.takes, patiently) {
                (_, true) => {
                    // A pipe may be such that it does not keep its writer.
                    self.has_room(true);
                    write(&self.to, rest)
                }
                (Takes::All, false) => write(&self.to, rest),
                (Takes::Now | Takes::Late, false) => self.write_now(rest),
            };
            match some {
                Ok(count @ 1..) => taken += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if patiently => {}
                Err(Errno::AGAIN) => break,
                Ok(0) | Err(_) => return (taken, true),
            }
        }
        (taken, false)
    }

    /// Writes what is taken at once.
    fn write_now(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if !self.asked.load(Ordering::Relaxed) {
            match without_waiting(&self.to, bytes) {
                // Linux before 6.5, or a sandbox.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.asked.store(true, Ordering::Relaxed);
                }
                written => return written,
            }
        }
        match self.has_room(false) {
            true => write(&self.to, bytes.get(..PIECE).unwrap_or(bytes)),
            false => Err(Errno::AGAIN),
        }
    }

    /// Whether a piece is taken at once; patiently, as soon as it is.
    fn has_room(&self, patiently: bool) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let asked = poll(&mut [PollFd::new(&self.to, PollFlags::OUT)], (!patiently).then_some(&at_once));
        // Who is patient may write even if this cannot be asked.
        patiently || asked.is_ok_and(|ready| ready > 0)
    }

    /// Has lines wait for who writes, as far as there is room.
    fn leave(&self, state: &mut State, lines: &[u8]) {
        let mut lost = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if state.waiting.len() + line.len() <= MOST {
                state.waiting.extend_from_slice(line);
            } else {
                lost += 1;
            }
        }
        self.lose(state, lost);
    }

    fn lose(&self, state: &mut State, lines: usize) {
        if lines > 0 {
            let lines = u64::try_from(lines).unwrap_or(u64::MAX);
            state.untold += lines;
            self.lost.add(lines);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of the system, where asking first would be two.
#[cfg(target_os = "linux")]
fn without_waiting(to: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    // This offset is that of a `write`.
    pwritev2(to, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn without_waiting(_: impl AsFd, _: &[u8]) -> Result<usize, Errno> {
    Err(Errno::NOSYS)
}

impl State {
    fn has_backlog(&self) -> bool {
        !self.rest.is_empty() || !self.waiting.is_empty()
    }

    /// Whether there is something for the thread. What fails is tried again with the next line only.
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.fails && (!self.rest.is_empty() || self.untold > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};

    use super::*;

    /// What Linux lets wait in a pipe.
    const PIPE: usize = 64 * 1024;

    fn outlet(asked: bool) -> (&'static Outlet<PipeWriter>, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let outlet = Outlet { asked: AtomicBool::new(asked), ..Outlet::new(writer) };
        (Box::leak(Box::new(outlet)), reader)
    }

    /// Lines that are told apart, and of which a part is no line.
    fn lines(of: &str, count: usize) -> String {
        (0..count).map(|number| format!("<{of} {number} {}>\n", "x".repeat(900 + number % 10))).collect()
    }

    #[test]
    fn what_is_taken_is_written_at_once() {
        let (outlet, mut reader) = outlet(false);
        outlet.put(b"one\ntwo\n");
        let mut read = [0; 8];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"one\ntwo\n");
        assert!(!outlet.state().thread, "by who has it");
    }

    #[test]
    fn a_line_that_is_half_written_goes_on_before_another_begins() {
        for asked in [false, true] {
            let (outlet, reader) = outlet(asked);
            let (first, others) = (lines("first", 100), lines("other", 10));
            outlet.put(first.as_bytes());
            assert!(outlet.state().within, "the pipe is full within a line");
            thread::scope(|scope| {
                (0..4).for_each(|_| drop(scope.spawn(|| outlet.put(others.as_bytes()))));
            });
            let expected = first + &others.repeat(4);
            let mut read = vec![0; expected.len()];
            BufReader::new(&reader).read_exact(&mut read).unwrap();
            assert!(read == expected.as_bytes());
            outlet.finish(Duration::from_secs(10));
            assert!(!outlet.state().has_backlog() && outlet.lost.count() == 0);
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_has_no_room_is_lost_by_whole_lines() {
        for asked in [false, true] {
            let (outlet, reader) = outlet(asked);
            thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || {
                        for line in lines(&thread.to_string(), 1000).split_inclusive('\n') {
                            outlet.put(line.as_bytes());
                        }
                    });
                }
            });
            let lost = outlet.lost.read();
            assert!(lost.count > 1000 && lost.last.is_some(), "{lost:?}");
            let state = outlet.state();
            assert!(state.waiting.len() <= MOST && state.rest.len() <= PIPE, "it is bounded");
            drop(state);
            let mut counts = [0; 4];
            for line in BufReader::new(&reader).lines().take(4000 - usize::try_from(lost.count).unwrap()) {
                let line = line.unwrap();
                let mut words = line.strip_prefix('<').unwrap().strip_suffix('>').unwrap().split(' ');
                let thread: usize = words.next().unwrap().parse().unwrap();
                let number: usize = words.next().unwrap().parse().unwrap();
                assert!(number >= counts[thread] && words.next().unwrap().len() == 900 + number % 10, "{line}");
                counts[thread] = number + 1;
            }
            outlet.finish(Duration::from_secs(10));
            let state = outlet.state();
            assert!(!state.busy && !state.has_work(), "what is lost was told: {state:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_lost_but_for_the_rest_of_a_line() {
        let (outlet, reader) = outlet(false);
        outlet.put(lines("a", 100).as_bytes());
        drop(reader);
        outlet.finish(Duration::from_secs(10));
        let lost = outlet.lost.count();
        let state = outlet.state();
        assert!(state.fails && state.within && (10..40).contains(&lost), "{lost}");
        assert!(state.rest.ends_with(b"x>\n") && !state.rest.contains(&b'<'), "one line's");
        drop(state);
        outlet.put(b"more\n");
        outlet.finish(Duration::from_secs(10));
        assert_eq!(outlet.lost.count(), lost + 1);
    }

    #[test]
    fn a_file_takes_everything() {
        let path = std::env::temp_dir().join(format!("lambda-policy-outlet-{}", std::process::id()));
        let outlet: &Outlet<_> = Box::leak(Box::new(Outlet::new(std::fs::File::create(&path).unwrap())));
        assert_eq!(outlet.takes, Takes::All);
        let all = lines("a", 1000);
        outlet.put(all.as_bytes());
        assert!(std::fs::read_to_string(&path).unwrap() == all);
        std::fs::remove_file(path).unwrap();
    }
}
