//! Real functions: processes that speak the Lambda Runtime API, each an execution environment with one call at a time.
//!
//! Source: Lambda developer guide, "Using the Lambda runtime API" and "Lambda execution environment".

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    environment::Environment,
    functions::Given,
    locked,
    output::{Broken, End, Output, Piece, Ran, Run},
    runtime_api::{Outcome, Part, Work, Writing},
};

/// How many environments a function may have; a call more is throttled.
const MAX_ENVIRONMENTS: usize = 10;

/// A function that is a command.
#[derive(Debug)]
pub(super) struct Process {
    environments: Arc<Environments>,
    places: Arc<Semaphore>,
    /// The runs; they go on when nobody waits for them any more, as at AWS.
    running: Mutex<JoinSet<()>>,
}

/// All environments are busy.
pub(super) struct Busy;

/// What runs a function, and where it has run.
#[derive(Debug)]
struct Environments {
    name: String,
    command: Vec<String>,
    timeout: Duration,
    idle: Mutex<Vec<Environment>>,
}

/// A run that came to no answer, or to none that is whole.
struct Failure {
    error: Broken,
    log: Vec<u8>,
}

impl Process {
    pub(super) fn new(name: &str, command: Vec<String>, timeout: Duration) -> Self {
        let environments = Environments { name: name.to_owned(), command, timeout, idle: Mutex::default() };
        Self {
            environments: Arc::new(environments),
            places: Arc::new(Semaphore::new(MAX_ENVIRONMENTS)),
            running: Mutex::default(),
        }
    }

    /// Runs the function once, in an idle environment or a new one.
    pub(super) async fn run(&self, event: &Bytes, given: &Given) -> Result<Ran, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let (reply, ran) = oneshot::channel();
        let run = Arc::clone(&self.environments).run(place, event.clone(), given.clone(), reply);
        {
            let mut running = locked(&self.running);
            while running.try_join_next().is_some() {}
            running.spawn(run);
        }
        // There is no answer if the whole endpoint goes away.
        ran.await.map_err(|_| Busy)
    }
}

impl Environments {
    async fn run(
        self: Arc<Self>,
        place: OwnedSemaphorePermit,
        event: Bytes,
        given: Given,
        reply: oneshot::Sender<Ran>,
    ) {
        let environment = match self.idle_in(&given.region) {
            Some(environment) => environment,
            None => match Environment::start(&self.name, &self.command, &given.region).await {
                Ok(environment) => environment,
                Err(error) => {
                    let failure =
                        Failure::new("Runtime.InvalidEntrypoint", &given.request_id, &error.to_string(), Vec::new());
                    // Here and below: nobody waits any more if it cannot be sent.
                    let _ = reply.send(failure.ran());
                    return;
                }
            },
        };
        self.run_in(environment, place, event, given, reply).await;
    }

    /// An idle environment that lives, of a region: the process has been told which.
    fn idle_in(&self, region: &str) -> Option<Environment> {
        let mut idle = locked(&self.idle);
        idle.retain(Environment::is_alive);
        let at = idle.iter().rposition(|environment| environment.is_in(region))?;
        Some(idle.remove(at))
    }

    async fn run_in(
        &self,
        environment: Environment,
        place: OwnedSemaphorePermit,
        event: Bytes,
        given: Given,
        reply: oneshot::Sender<Ran>,
    ) {
        let id = given.request_id.clone();
        environment.note(&format!("START RequestId: {id} Version: {}\n", given.version));
        let (answer, answered) = oneshot::channel();
        let work = Work { event, given, timeout: self.timeout, reply: answer };
        let deadline = Instant::now() + self.timeout;
        let outcome = async {
            tokio::select! {
                // What was answered counts, though the process may have ended right after.
                biased;
                outcome = async {
                    environment.send(work).await?;
                    answered.await.ok()
                } => outcome,
                () = environment.ended() => None,
            }
        };
        let ran = match timeout_at(deadline, outcome).await {
            Ok(Some(Outcome::Stream(writing))) => {
                return self.follow(environment, place, writing, deadline, &id, reply).await;
            }
            Ok(Some(Outcome::Answer(output))) => {
                Ran::Whole(Run { output, error: None, log: self.put_back(environment, &id) })
            }
            Ok(Some(Outcome::Error(output))) => {
                Ran::Whole(Run { output, error: Some("Unhandled"), log: self.put_back(environment, &id) })
            }
            Ok(None) => {
                let how = environment.exit().await;
                match environment.init_error() {
                    Some(output) => Ran::Whole(Run { output, error: Some("Unhandled"), log: environment.take_log() }),
                    None => Failure::exit(&id, how, environment.take_log()).ran(),
                }
            }
            Err(_) => Failure::timeout(&id, self.timeout, environment.take_log()).ran(),
        };
        drop(place);
        let _ = reply.send(ran);
    }

    /// Passes on what the process writes, as fast as it is read; if nobody reads it any more, it is thrown away.
    async fn follow(
        &self,
        environment: Environment,
        place: OwnedSemaphorePermit,
        mut writing: Writing,
        deadline: Instant,
        id: &str,
        reply: oneshot::Sender<Ran>,
    ) {
        let (out, pieces) = mpsc::channel(1);
        let pieces = ReceiverStream::new(pieces).boxed();
        let _ = reply.send(Ran::Stream(Output { content_type: writing.content_type, pieces }));
        let written = async {
            loop {
                match writing.parts.recv().await {
                    Some(Part::Chunk(chunk)) => {
                        let _ = out.send(Piece::Chunk(chunk)).await;
                    }
                    Some(Part::End(error)) => return Some(error),
                    None => return None,
                }
            }
        };
        let end = match timeout_at(deadline, written).await {
            Ok(Some(error)) => End { error, log: self.put_back(environment, id) },
            Ok(None) => {
                let failure = match environment.exit().await {
                    None => {
                        let how = "the response ended before it was whole";
                        Failure::new("Runtime.TruncatedResponse", id, how, environment.take_log())
                    }
                    how => Failure::exit(id, how, environment.take_log()),
                };
                drop(environment);
                failure.end()
            }
            Err(_) => {
                let log = environment.take_log();
                drop(environment);
                Failure::timeout(id, self.timeout, log).end()
            }
        };
        drop(place);
        let _ = out.send(Piece::End(end)).await;
    }

    /// The environment is free for the next event; its log so far is this one's.
    fn put_back(&self, environment: Environment, id: &str) -> Vec<u8> {
        environment.note(&format!("END RequestId: {id}\n"));
        let log = environment.take_log();
        locked(&self.idle).push(environment);
        log
    }
}

impl Failure {
    fn new(error_type: &str, id: &str, what: &str, mut log: Vec<u8>) -> Self {
        let message = format!("RequestId: {id} Error: {what}");
        log.extend_from_slice(format!("{message}\n").as_bytes());
        Self { error: Broken::new(error_type, &message), log }
    }

    fn exit(id: &str, how: Option<String>, log: Vec<u8>) -> Self {
        let how = how.unwrap_or_else(|| "closed its connection".to_owned());
        Self::new("Runtime.ExitError", id, &format!("Runtime exited with error: {how}"), log)
    }

    fn timeout(id: &str, after: Duration, log: Vec<u8>) -> Self {
        Self::new("Sandbox.Timedout", id, &format!("Task timed out after {:.2} seconds", after.as_secs_f64()), log)
    }

    /// Instead of an answer.
    fn ran(self) -> Ran {
        Ran::Whole(Run { output: self.error.details.into(), error: Some("Unhandled"), log: self.log })
    }

    /// After a part of it.
    fn end(self) -> End {
        End { error: Some(self.error), log: self.log }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn run(command: &[&str], timeout: Duration) -> serde_json::Value {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let process = Process::new("orders", command, timeout);
        let given = Given { request_id: "r-1".into(), version: "$LATEST".into(), ..Given::default() };
        let Ok(ran) = process.run(&Bytes::from("{}"), &given).await else { panic!("no place") };
        let run = ran.whole().await;
        assert_eq!(run.error, Some("Unhandled"));
        serde_json::from_slice(&run.output).unwrap()
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_fails_as_lambda_says_it() {
        let long = Duration::from_secs(20);
        for (what, command, timeout, error_type, message) in [
            (
                "an exit",
                &["sh", "-c", "exit 3"][..],
                long,
                "Runtime.ExitError",
                "RequestId: r-1 Error: Runtime exited with error: exit status 3",
            ),
            (
                "a kill",
                &["sh", "-c", "kill -9 $$"],
                long,
                "Runtime.ExitError",
                "RequestId: r-1 Error: Runtime exited with error: signal: killed",
            ),
            (
                "silence",
                &["sleep", "60"],
                Duration::from_millis(200),
                "Sandbox.Timedout",
                "RequestId: r-1 Error: Task timed out after 0.20 seconds",
            ),
        ] {
            let error = run(command, timeout).await;
            assert_eq!(
                (error["errorType"].as_str().unwrap(), error["errorMessage"].as_str().unwrap()),
                (error_type, message),
                "{what}"
            );
        }
        let error = run(&["/no/such/command"], long).await;
        assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint");
    }
}
