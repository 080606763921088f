//! Chromium without a window, told what to do through the DevTools protocol: JSON through two pipes.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::Directory;

/// One page of a browser that has nothing else open.
pub(crate) struct Browser {
    _child: Child,
    _profile: Directory,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    sent: u64,
    session: Option<String>,
    /// What it asked for, in order.
    pub requests: Vec<String>,
    /// What it wrote to its console, and what it could not load or would not run.
    pub complaints: Vec<String>,
}

impl Browser {
    /// A browser, unless there is none here.
    pub(crate) async fn start() -> Option<Self> {
        let profile = Directory::new();
        // Descriptors 3 and 4 are the protocol's.
        let script = r#"exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --no-proxy-server \
            --remote-debugging-pipe --user-data-dir="$0" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let found =
            Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !found.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&profile.0).env("HOME", &profile.0);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (requests, complaints) = (Vec::new(), Vec::new());
        let mut browser =
            Self { _child: child, _profile: profile, input, output, sent: 0, session: None, requests, complaints };
        let target = browser.tell("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.tell("Target.attachToTarget", attach).await;
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.tell(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// Has a page of this size, light or dark.
    pub(crate) async fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.tell("Emulation.setEmulatedMedia", features).await;
    }

    pub(crate) async fn open(&mut self, url: &str) {
        let opened = self.tell("Page.navigate", json!({"url": url})).await;
        assert!(opened["errorText"].is_null(), "{opened}");
    }

    /// The value of an expression on the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.tell("Runtime.evaluate", asked).await;
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true, for ten seconds at the most.
    pub(crate) async fn until(&mut self, expression: &str) {
        for _ in 0..200 {
            if self.value(expression).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let text = self.value("document.body.innerText").await;
        panic!("never true: {expression}: {text}: {:?}", self.complaints);
    }

    /// Draws all of the page into a file, and says how large that is.
    pub(crate) async fn draw(&mut self, file: &Path) -> usize {
        let drawn = self.tell("Page.captureScreenshot", json!({"format": "png"})).await;
        let png = BASE64_STANDARD.decode(drawn["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, &png).unwrap();
        png.len()
    }

    async fn tell(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut message = message.to_string().into_bytes();
        message.push(0);
        self.input.write_all(&message).await.unwrap();
        loop {
            let mut said = Vec::new();
            let read = timeout(Duration::from_secs(60), self.output.read_until(0, &mut said)).await;
            assert!(read.expect("the browser says nothing").unwrap() > 0, "the browser has ended at {method}");
            said.pop();
            let said: Value = serde_json::from_slice(&said).unwrap();
            if said["id"] == json!(self.sent) {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, event: &Value) {
        let what = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.push(what["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => {
                self.complaints.push(what.to_string());
            }
            _ => {}
        }
    }
}
