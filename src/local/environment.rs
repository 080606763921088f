//! One execution environment of a function: a process, its Runtime API and its log.
//!
//! Source: Lambda developer guide, "Defined runtime environment variables".

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::Command,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    locked,
    runtime_api::{self, InitError, Work},
};

/// How much of a log is kept.
const LOG_LIMIT: usize = 16 * 1024;

/// A process that waits for its next event, or works on one.
#[derive(Debug)]
pub(super) struct Environment {
    region: String,
    work: mpsc::Sender<Work>,
    exit: watch::Receiver<Option<String>>,
    init_error: InitError,
    log: Log,
    /// The process, its Runtime API and its log; all end when it is dropped.
    _tasks: JoinSet<()>,
}

type Log = Arc<Mutex<Vec<u8>>>;

impl Environment {
    /// Starts the process of a function, which is told its name and region.
    pub(super) async fn start(name: &str, command: &[String], region: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
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
        Ok(Self { region: region.to_owned(), work, exit, init_error, log, _tasks: tasks })
    }
    /// Whether the process lives and has been told this region.
    pub(super) fn is_in(&self, region: &str) -> bool {
        self.region == region && self.is_alive()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Gives the process an event, as soon as it asks for one.
    pub(super) async fn send(&self, work: Work) -> Option<()> {
        self.work.send(work).await.ok()
    }

    /// Waits for the process to end.
    pub(super) async fn ended(&self) {
        // An error is the end of the task that waits for it.
        let _ = self.exit.clone().wait_for(Option::is_some).await;
    }

    /// How the process ended, which may still be on its way from the task that waits for it; nothing if it goes on.
    pub(super) async fn exit(&self) -> Option<String> {
        let _ = timeout(Duration::from_secs(1), self.ended()).await;
        self.exit.borrow().clone()
    }

    /// What the process said when it could not start.
    pub(super) fn init_error(&self) -> Option<Bytes> {
        self.init_error.get()
    }

    /// Writes a line of Lambda's own into the log.
    pub(super) fn note(&self, line: &str) {
        append(&self.log, line.as_bytes());
    }

    /// What has been logged since the last time.
    pub(super) fn take_log(&self) -> Vec<u8> {
        std::mem::take(&mut *locked(&self.log))
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
    let mut log = locked(log);
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
