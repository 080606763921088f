//! What happened to a call on its way, for the spans that are made of it.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Method;

/// More is not kept of a call: a few attempts, each with a connection.
const MOST: usize = 32;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The call has its place among those in flight.
    Admitted,
    /// There are credentials.
    Authorized,
    /// A connection was made for it, in so much time.
    Connected(Duration),
    /// A connection could not be made, after so much time.
    NotConnected(Duration),
    /// Lambda answered with this status.
    Answered(u16),
    /// It is sent again, after this has helped.
    Again(&'static str),
    /// Lambda's answer is read.
    Done,
}

/// What a call by plain HTTP came as.
#[derive(Clone, Debug)]
pub struct Came {
    /// As it was sent.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// HTTP's.
    pub version: &'static str,
}

/// What is noted while a call goes on. Only calls that spans are made of have this lock, and nobody contends for it.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<Way>);

/// A call's way.
#[derive(Debug, Default)]
pub struct Way {
    /// What it came as, if by plain HTTP.
    pub came: Option<Came>,
    /// What happened when.
    pub steps: Vec<(Instant, Step)>,
    /// The host and port that it is invoked at.
    pub server: Option<(String, u16)>,
}

impl Noted {
    pub(super) fn add(&self, at: Instant, step: Step) {
        let mut way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if way.steps.len() < MOST {
            way.steps.push((at, step));
        }
    }

    pub(super) fn came(&self, came: Came) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).came = Some(came);
    }

    pub(super) fn goes_to(&self, host: &str, port: u16) {
        let mut way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        way.server = Some((host.to_owned(), port));
    }

    pub(super) fn take(&self) -> Way {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Way {
    /// When something happened first.
    pub fn at(&self, wanted: Step) -> Option<Instant> {
        self.steps.iter().find(|(_, step)| *step == wanted).map(|(at, _)| *at)
    }
}
