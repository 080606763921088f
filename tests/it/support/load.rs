//! Callers that never stop calling, and what came of all their calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lambda_policy::pb::{execute_policy_stream_response::Part, policy_service_client::PolicyServiceClient};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{Failed, eventually, execute, output, request};

/// How long a caller pauses between two calls.
const PAUSE: Duration = Duration::from_millis(2);

/// Callers, until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Tally>>,
}

/// What came of many calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub answered: u64,
    pub failed: Vec<Failed>,
    /// How often a call was made once more, as the client's own library said that it had never left.
    pub unsent: u64,
}

impl Load {
    /// A caller for each client, which calls a policy of the function `echo`, one call after another.
    pub(crate) fn of(clients: Vec<PolicyServiceClient<Channel>>, policy: &'static str) -> Self {
        Self::start(clients, move |client, n| async move {
            let response = execute(&client, request(policy, &format!(r#"{{"n":{n}}}"#))).await?;
            assert_eq!(output(&response)["n"], n, "each caller gets the answer to its own call");
            Ok(())
        })
    }

    /// A caller for each client, which calls a policy of the function `stream`: 300 ms of a stream each time.
    pub(crate) fn of_streams(clients: Vec<PolicyServiceClient<Channel>>, policy: &'static str) -> Self {
        Self::start(clients, move |mut client, _| async move {
            let call = request(policy, r#"{"chunks": 11, "every": 30}"#);
            let mut stream = client.execute_policy_stream(call).await?.into_inner();
            let mut chunks = 0;
            while let Some(message) = stream.message().await? {
                match message.part {
                    Some(Part::Chunk(_)) => chunks += 1,
                    Some(Part::End(_)) => assert_eq!(chunks, 11, "it is whole"),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// A caller for each of these, which makes numbered calls.
    pub(crate) fn start<C, F>(callers: Vec<C>, call: impl Fn(C, u64) -> F + Send + Sync + 'static) -> Self
    where
        C: Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), Failed>> + Send,
    {
        let (stop, calls, call) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(call));
        let callers = callers.into_iter().map(|caller| {
            let (stop, calls, call) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&call));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let n = calls.fetch_add(1, Ordering::Relaxed);
                    tally.count(|| call(caller.clone(), n)).await;
                    tokio::time::sleep(PAUSE).await;
                }
                tally
            })
        });
        let callers = callers.collect();
        Self { stop, calls, callers }
    }

    /// How many calls have begun.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Waits until so many more calls have begun.
    pub(crate) async fn more(&self, calls: u64) {
        let until = self.calls() + calls;
        eventually("more calls", async || (self.calls() >= until).then_some(())).await;
    }

    /// Lets every caller end its last call.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for caller in self.callers {
            let Tally { answered, failed, unsent } = caller.await.unwrap();
            all.answered += answered;
            all.failed.extend(failed);
            all.unsent += unsent;
        }
        all
    }
}

impl Tally {
    /// A call, made as the libraries of gRPC do that make a call again which never left them (gRFC A6, "transparent
    /// retries"). Tonic leaves that to who uses it.
    async fn count<F: Future<Output = Result<(), Failed>>>(&mut self, call: impl Fn() -> F) {
        for _ in 0..50 {
            match call().await {
                Ok(()) => {
                    self.answered += 1;
                    return;
                }
                Err(failed) if never_left(&failed) => self.unsent += 1,
                Err(failed) => {
                    self.failed.push(failed);
                    return;
                }
            }
            tokio::time::sleep(10 * PAUSE).await;
        }
        panic!("no call leaves the client");
    }

    /// Every call was answered.
    pub(crate) fn is_whole(&self) -> bool {
        self.failed.is_empty() && self.answered > 0
    }
}

/// Whether the client's library says that it never sent the call, or the service that it never looked at it: GOAWAY names
/// the last call that counts (RFC 9113, 6.8).
fn never_left(failed: &Failed) -> bool {
    let mut cause = std::error::Error::source(&failed.status);
    while let Some(error) = cause {
        if error.downcast_ref::<h2::Error>().is_some_and(|error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        }) {
            return true;
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
