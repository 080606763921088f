//! The binary as a process of its own.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lambda-policy");

/// A process whose every word is kept, and which does not outlive the test.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

impl Process {
    pub(crate) fn serve(config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start("serve", config, environment)
    }

    /// `serve` or `dev` with a configuration.
    pub(crate) fn start(command: &str, config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args([command, "--config"])
            .arg(config)
            .env("LAMBDA_POLICY_LOG", "debug")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        keep(child.stdout.take().unwrap(), &said);
        keep(child.stderr.take().unwrap(), &said);
        Self { child, said }
    }

    /// Everything that it has written so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The lines of its log with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<serde_json::Value> {
        let said = self.said();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The address that it says it serves at.
    pub(crate) fn address(&self, which: &str) -> Option<String> {
        self.lines("serving").first()?[which].as_str().map(str::to_owned)
    }

    pub(crate) fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

fn keep(mut output: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let kept = Arc::clone(said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
