//! Load reports behind each call's answer, for clients that weigh replicas by them: ORCA's `endpoint-load-metrics-bin`
//! (gRFC A51; the weights are those of gRFC A58).
//!
//! A task of its own makes a report every tenth of a second. A call appends the last one as it is, which costs it a
//! header that is counted and not copied.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Frame, SizeHint};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status, body::Body};

use crate::{execute::Engine, pb::xds::data::orca::v3::OrcaLoadReport};

const NAME: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
/// How often a report is made.
const PERIOD: Duration = Duration::from_millis(100);
/// How many periods a report is about.
const PERIODS: usize = 10;

/// What a replica has of what its calls need.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Places for calls in flight.
    pub in_flight: usize,
    /// Threads that serve.
    pub workers: usize,
}

/// The last report, and what the next one is made of.
#[derive(Clone)]
pub(super) struct Load(Arc<State>);

#[derive(Default)]
struct State {
    report: ArcSwapOption<HeaderValue>,
    calls: AtomicU64,
    failed: AtomicU64,
}

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Since the process began.
    cpu: Duration,
    /// Since the process began.
    calls: u64,
    /// Since the process began.
    failed: u64,
    in_flight: usize,
}

/// The samples of the last second.
struct Window {
    capacity: Capacity,
    samples: VecDeque<Sample>,
}

/// An answer with a report at its end.
struct Reported {
    inner: Body,
    load: Load,
}

impl Load {
    /// Reports on an engine for as long as somebody has the reports.
    pub(super) fn start(engine: Arc<Engine>, capacity: Capacity) -> Self {
        let load = Self(Arc::default());
        tokio::spawn(follow(Arc::downgrade(&load.0), engine, capacity));
        load
    }

    /// The answer, with the report behind it.
    pub(super) fn append(&self, mut response: Response<Body>) -> Response<Body> {
        // An error without a message has its trailers in the headers.
        if response.headers().contains_key(Status::GRPC_STATUS) {
            self.end(response.headers_mut());
            return response;
        }
        response.map(|inner| Body::new(Reported { inner, load: self.clone() }))
    }

    fn end(&self, trailers: &mut HeaderMap) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        if is_own_failure(trailers) {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(report) = self.0.report.load().as_ref() {
            trailers.insert(NAME, HeaderValue::clone(report));
        }
    }
}

/// Whether another replica might have done better. What is wrong with a call, a policy or a function is so everywhere,
/// and would only take weight from the replica that the caller happens to have.
fn is_own_failure(trailers: &HeaderMap) -> bool {
    let code = trailers.get(Status::GRPC_STATUS).map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
    matches!(code, Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::Unknown)
}

async fn follow(state: Weak<State>, engine: Arc<Engine>, capacity: Capacity) {
    let mut window = Window { capacity, samples: VecDeque::with_capacity(PERIODS + 1) };
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let Some(state) = state.upgrade() else { return };
        let report = window.push(Sample {
            at: Instant::now(),
            cpu: cpu(),
            calls: state.calls.load(Ordering::Relaxed),
            failed: state.failed.load(Ordering::Relaxed),
            in_flight: engine.admission().in_flight(),
        });
        state.report.store(report.and_then(|report| header(&report)).map(Arc::new));
    }
}

/// How long the process' threads have run.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn header(report: &OrcaLoadReport) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(BASE64_STANDARD_NO_PAD.encode(report.encode_to_vec()))).ok()
}

impl Window {
    /// What is to be said now; nothing at the first look.
    fn push(&mut self, now: Sample) -> Option<OrcaLoadReport> {
        if self.samples.len() > PERIODS {
            self.samples.pop_front();
        }
        let before = self.samples.front().copied();
        self.samples.push_back(now);
        let before = before?;
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let a_second = |all: f64| if seconds > 0.0 { all / seconds } else { 0.0 };
        let in_flight: usize = self.samples.iter().map(|sample| sample.in_flight).sum();
        let in_flight = in_flight as f64 / self.samples.len() as f64;
        let Capacity { in_flight: places, workers } = self.capacity;
        Some(OrcaLoadReport {
            cpu_utilization: a_second((now.cpu.saturating_sub(before.cpu)).as_secs_f64()) / workers as f64,
            rps_fractional: a_second(now.calls.saturating_sub(before.calls) as f64),
            eps: a_second(now.failed.saturating_sub(before.failed) as f64),
            // Whoever reads it has just had a call here. With 0, clients would go by the processor for this one report,
            // on a scale of its own.
            application_utilization: in_flight.max(1.0) / places as f64,
            named_metrics: HashMap::from([("in_flight".to_owned(), in_flight)]),
        })
    }
}

impl hyper::body::Body for Reported {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let mut frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            this.load.end(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { in_flight: 100, workers: 4 };

    /// Reports of a replica with this much for each tenth of a second.
    fn reports(looks: usize, cpu: Duration, calls: u64, failed: u64, in_flight: usize) -> Vec<Option<OrcaLoadReport>> {
        let mut window = Window { capacity: CAPACITY, samples: VecDeque::new() };
        let begin = Instant::now();
        (0..looks)
            .map(|look| {
                let n = u32::try_from(look).unwrap();
                window.push(Sample {
                    at: begin + PERIOD * n,
                    cpu: cpu * n,
                    calls: calls * u64::from(n),
                    failed: failed * u64::from(n),
                    in_flight,
                })
            })
            .collect()
    }

    #[test]
    fn a_report_is_about_the_last_second() {
        let reports = reports(50, Duration::from_millis(200), 30, 3, 25);
        assert_eq!(reports[0], None, "one look shows nothing of what a second holds");
        for report in reports[1..].iter().flatten() {
            for (what, found, expected) in [
                ("two of four workers are busy", report.cpu_utilization, 0.5),
                ("calls in a second", report.rps_fractional, 300.0),
                ("failures in a second", report.eps, 30.0),
                ("a quarter of the places is taken", report.application_utilization, 0.25),
                ("the same in calls", report.named_metrics["in_flight"], 25.0),
            ] {
                assert!((found - expected).abs() < 1e-6, "{what}: {found}");
            }
        }
        let mut window = Window { capacity: CAPACITY, samples: VecDeque::new() };
        let begin = Instant::now();
        let sample =
            |n: u32, calls| Sample { at: begin + PERIOD * n, cpu: Duration::ZERO, calls, failed: 0, in_flight: 0 };
        window.push(sample(0, 0));
        window.push(sample(1, 50));
        let last = (2..20).filter_map(|n| window.push(sample(n, 50))).last().unwrap();
        assert_eq!((last.rps_fractional, window.samples.len()), (0.0, PERIODS + 1), "what is longer ago is gone");
    }

    #[test]
    fn an_idle_replica_is_not_unutilized_by_the_measure_that_weights_go_by() {
        let last = reports(5, Duration::ZERO, 0, 0, 0).pop().unwrap().unwrap();
        assert_eq!((last.application_utilization, last.named_metrics["in_flight"]), (0.01, 0.0));
    }

    #[test]
    fn only_what_another_replica_might_do_better_counts_as_an_error() {
        for (code, own) in [
            (Code::Ok, false),
            (Code::InvalidArgument, false),
            (Code::NotFound, false),
            (Code::ResourceExhausted, false),
            (Code::Unavailable, true),
            (Code::Internal, true),
            (Code::DeadlineExceeded, true),
        ] {
            let status = Status::new(code, "").into_http::<Body>();
            assert_eq!(is_own_failure(status.headers()), own, "{code:?}");
        }
    }

    #[test]
    fn the_report_is_the_one_of_xds() {
        let report = OrcaLoadReport {
            cpu_utilization: 0.5,
            rps_fractional: 2.0,
            eps: 1.0,
            named_metrics: HashMap::from([("n".to_owned(), 1.0)]),
            application_utilization: 0.25,
        };
        // Field numbers and types of xds/data/orca/v3/orca_load_report.proto: doubles 1, 6, 7 and 9, a map 8.
        let half = 0.5f64.to_le_bytes();
        let expected = [
            &[1 << 3 | 1][..],
            &half,
            &[6 << 3 | 1],
            &2.0f64.to_le_bytes(),
            &[7 << 3 | 1],
            &1.0f64.to_le_bytes(),
            &[8 << 3 | 2, 12, 1 << 3 | 2, 1, b'n', 2 << 3 | 1],
            &1.0f64.to_le_bytes(),
            &[9 << 3 | 1],
            &0.25f64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(report.encode_to_vec(), expected);
    }
}
