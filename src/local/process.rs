//! Real functions: processes that speak the Lambda Runtime API, each an execution environment with one call at a time.
//!
//! Source: Lambda developer guide, "Using the Lambda runtime API" and "Lambda execution environment".

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::Command,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    functions::{Given, Run},
    runtime_api::{self, InitError, Outcome, Work},
};

/// How many environments a function may have; a call more is throttled.
const MAX_ENVIRONMENTS: usize = 10;
/// How much of a log is kept.
const LOG_LIMIT: usize = 16 * 1024;

/// A function that is a command, and its environments.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    command: Vec<String>,
    timeout: Duration,
    places: Semaphore,
    idle: Mutex<Vec<Environment>>,
}

/// All environments are busy.
pub(super) struct Busy;

/// A process that waits for its next event.
#[derive(Debug)]
struct Environment {
    region: String,
    work: mpsc::Sender<Work>,
    exit: watch::Receiver<Option<String>>,
    init_error: InitError,
    log: Log,
    /// The process, its Runtime API and its log; all end when it is dropped.
    _tasks: JoinSet<()>,
}

type Log = Arc<Mutex<Vec<u8>>>;

impl Process {
    pub(super) fn new(name: &str, command: Vec<String>, timeout: Duration) -> Self {
        Self {
            name: name.to_owned(),
            command,
            timeout,
            places: Semaphore::new(MAX_ENVIRONMENTS),
            idle: Mutex::default(),
        }
    }

    /// Runs the function once, in an idle environment or a new one.
    pub(super) async fn run(&self, event: &Bytes, given: &Given) -> Result<Run, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let environment = match self.idle_in(&given.region) {
            Some(environment) => environment,
            None => match self.start(&given.region).await {
                Ok(environment) => environment,
                Err(error) => {
                    let message = format!("RequestId: {} Error: {error}", given.request_id);
                    return Ok(failed("Runtime.InvalidEntrypoint", &message, Vec::new()));
                }
            },
        };
        Ok(self.run_in(environment, event, given).await)
    }

    /// An idle environment that lives, of a region: the process has been told which.
    fn idle_in(&self, region: &str) -> Option<Environment> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|environment| environment.exit.borrow().is_none());
        let place = idle.iter().rposition(|environment| environment.region == region)?;
        Some(idle.remove(place))
    }

    async fn run_in(&self, mut environment: Environment, event: &Bytes, given: &Given) -> Run {
        let id = &given.request_id;
        environment.note(&format!("START RequestId: {id} Version: {}\n", given.version));
        let (reply, answered) = oneshot::channel();
        let work = Work { event: event.clone(), given: given.clone(), timeout: self.timeout, reply };
        let ended = async {
            tokio::select! {
                // What was answered counts, though the process may have ended right after.
                biased;
                outcome = async {
                    environment.work.send(work).await.ok()?;
                    answered.await.ok()
                } => outcome,
                _ = environment.exit.wait_for(Option::is_some) => None,
            }
        };
        let outcome = timeout(self.timeout, ended).await;
        match outcome {
            Ok(Some(outcome)) => {
                environment.note(&format!("END RequestId: {id}\n"));
                let log = environment.take_log();
                let run = match outcome {
                    Outcome::Answer(output) => Run { output, error: None, log },
                    Outcome::Error(output) => Run { output, error: Some("Unhandled"), log },
                };
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(environment);
                run
            }
            Ok(None) => {
                // The exit may still be on its way from the task that waits for the process.
                let _ = timeout(Duration::from_secs(1), environment.exit.wait_for(Option::is_some)).await;
                if let Some(output) = environment.init_error.get() {
                    return Run { output, error: Some("Unhandled"), log: environment.take_log() };
                }
                let how = environment.exit.borrow().clone().unwrap_or_else(|| "closed its connection".to_owned());
                let message = format!("RequestId: {id} Error: Runtime exited with error: {how}");
                failed("Runtime.ExitError", &message, environment.take_log())
            }
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                let message = format!("RequestId: {id} Error: Task timed out after {seconds:.2} seconds");
                failed("Sandbox.Timedout", &message, environment.take_log())
            }
        }
    }

    async fn start(&self, region: &str) -> io::Result<Environment> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", self.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("AWS_REGION", region)
            .env("AWS_DEFAULT_REGION", region)
            .env("LAMBDA_TASK_ROOT", ".")
            .env("_HANDLER", "handler")
            .env("TZ", ":UTC")
            // A function has its own role, never the keys of whoever started this.
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = Log::default();
        let mut tasks = JoinSet::new();
        if let Some(output) = child.stdout.take() {
            tasks.spawn(keep(output, Arc::clone(&log)));
        }
        if let Some(output) = child.stderr.take() {
            tasks.spawn(keep(output, Arc::clone(&log)));
        }
        let (ended, exit) = watch::channel(None);
        tasks.spawn(async move {
            let how = match child.wait().await {
                Ok(status) => said(status),
                Err(error) => error.to_string(),
            };
            ended.send_replace(Some(how));
        });
        let (work, queue) = mpsc::channel(1);
        let init_error = InitError::default();
        tasks.spawn(runtime_api::serve(listener, queue, init_error.clone()));
        Ok(Environment { region: region.to_owned(), work, exit, init_error, log, _tasks: tasks })
    }
}

impl Environment {
    fn note(&self, line: &str) {
        append(&self.log, line.as_bytes());
    }

    fn take_log(&self) -> Vec<u8> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the end of what a process prints.
async fn keep(output: impl AsyncRead + Unpin, log: Log) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        append(&log, &line);
        line.clear();
    }
}

fn append(log: &Log, text: &[u8]) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.extend_from_slice(text);
    let surplus = log.len().saturating_sub(LOG_LIMIT);
    log.drain(..surplus);
}

/// An exit in Lambda's words.
fn said(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".to_owned(),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

fn failed(error_type: &str, message: &str, mut log: Vec<u8>) -> Run {
    log.extend_from_slice(format!("{message}\n").as_bytes());
    let output = json!({"errorType": error_type, "errorMessage": message}).to_string().into();
    Run { output, error: Some("Unhandled"), log }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn run(command: &[&str], timeout: Duration) -> serde_json::Value {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let process = Process::new("orders", command, timeout);
        let given = Given { request_id: "r-1".into(), version: "$LATEST".into(), ..Given::default() };
        let Ok(run) = process.run(&Bytes::from("{}"), &given).await else { panic!("no place") };
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
