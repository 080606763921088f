//! Rules, alerts and dashboard under `deploy/`: at one with the metrics, and answered by a Prometheus that scrapes the service.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use lambda_policy::{
    pb::{ExecutePolicyRequest, LambdaPolicy},
    telemetry::names::{ALL, Kind},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{
    Directory, Service, admin, collector::telemetry, config, eventually, lambda, linters::Linters, request,
};

/// Labels that the scraper adds, and that histograms have.
const SCRAPED: [&str; 4] = ["namespace", "job", "instance", "le"];
/// What is Prometheus' own: its labels are not looked at.
const OWN: [&str; 2] = ["up", "ALERTS"];
/// Words of PromQL that stand where names may.
const WORDS: [&str; 7] = ["and", "or", "unless", "by", "on", "offset", "bool"];
/// Operators and functions that the expressions use.
const FUNCTIONS: [&str; 13] = [
    "absent",
    "avg",
    "count",
    "histogram_quantile",
    "increase",
    "label_replace",
    "label_values",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "rate",
    "resets",
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether Debian's package `prometheus` is there, which CI must have.
#[expect(clippy::print_stderr, reason = "who runs the tests is told what they leave out")]
fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        eprintln!("{program} is not installed, so rules and dashboard were not checked by it");
    }
    there
}

fn promtool(args: &[&str]) -> Result<(), String> {
    let output = Command::new("promtool").args(args).current_dir(deploy("prometheus")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// A rule of the file.
struct Rule {
    name: String,
    expr: String,
    value: Value,
}

fn rules(linters: &Linters) -> Vec<Rule> {
    let groups = linters.documents(&read("prometheus/rules.yaml")).remove(0);
    let rules = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rule = |value: &Value| {
        let name = text(&value["record"]) + &text(&value["alert"]);
        Rule { name, expr: text(&value["expr"]), value: value.clone() }
    };
    rules.map(rule).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/lambda-policy.json")).unwrap()
}

/// The expressions of a dashboard's panels by their titles, its annotations and its variables.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for panel in list(&dashboard["panels"]) {
        all.extend(list(&panel["targets"]).iter().map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    all.extend(list(&dashboard["annotations"]["list"]).iter().map(|a| (text(&a["name"]), text(&a["expr"]))));
    let variables = list(&dashboard["templating"]["list"]);
    let variables = variables.iter().filter(|variable| variable["type"] == "query");
    all.extend(variables.map(|variable| (text(&variable["name"]), text(&variable["query"]["query"]))));
    all
}

/// What an expression names: metrics with the labels that are matched, and labels by which it groups or joins.
#[derive(Default)]
struct Named {
    metrics: Vec<(String, Vec<String>)>,
    groups: Vec<String>,
}

/// Reads an expression word by word, as far as names go.
fn named(expr: &str) -> Named {
    let mut found = Named::default();
    let mut rest = expr;
    let mut last = "";
    let (mut matchers, mut grouping) = (false, false);
    while let Some(c) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let (token, after) = match c {
            '"' => rest.split_at(rest[1..].find('"').unwrap() + 2),
            c if is_name(c) || c == '$' => {
                rest.split_at(rest[1..].find(|c| !is_name(c)).map_or(rest.len(), |at| at + 1))
            }
            c => rest.split_at(c.len_utf8()),
        };
        rest = after;
        match token {
            "{" => matchers = true,
            "}" => matchers = false,
            "(" => grouping = ["by", "on"].contains(&last),
            ")" => grouping = false,
            "[" => rest = rest.split_once(']').unwrap().1,
            _ if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {}
            _ if last == "offset" => {}
            label if matchers => found.metrics.last_mut().unwrap().1.push(label.to_owned()),
            label if grouping => found.groups.push(label.to_owned()),
            "sum" => {}
            word if WORDS.contains(&word) || FUNCTIONS.contains(&word) => {}
            // The second argument of Grafana's label_values.
            label if last == "," && expr.starts_with("label_values") => found.groups.push(label.to_owned()),
            metric => found.metrics.push((metric.to_owned(), Vec::new())),
        }
        if !token.trim().is_empty() {
            last = token;
        }
    }
    found
}

/// The names in Prometheus of all that the service and the rules give, with their labels.
fn known(rules: &[Rule]) -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    let scraped = || SCRAPED[..3].iter().map(|label| (*label).to_owned());
    for metric in ALL {
        let labels: BTreeSet<_> =
            metric.labels.iter().map(|label| label.name.replace('.', "_")).chain(scraped()).collect();
        let name = metric.prometheus();
        if matches!(metric.kind, Kind::Histogram(_)) {
            known.insert(format!("{name}_count"), labels.clone());
            known.insert(format!("{name}_sum"), labels.clone());
            known.insert(format!("{name}_bucket"), labels.into_iter().chain(["le".to_owned()]).collect());
        } else {
            known.insert(name, labels);
        }
    }
    for rule in rules.iter().filter(|rule| !rule.value["record"].is_null()) {
        let of = named(&rule.expr);
        let mut labels: BTreeSet<_> = of.groups.iter().cloned().collect();
        if labels.is_empty() {
            labels.extend(of.metrics.iter().flat_map(|(metric, _)| known.get(metric).into_iter().flatten().cloned()));
            if rule.expr.starts_with("histogram_quantile") {
                labels.remove("le");
            }
        }
        labels.extend(rule.value["labels"].as_object().into_iter().flat_map(|labels| labels.keys().cloned()));
        let before = known.insert(rule.name.clone(), labels.clone());
        assert!(before.is_none_or(|before| before == labels), "{}", rule.name);
    }
    known
}

/// What is wrong with an expression's names.
fn strange(known: &BTreeMap<String, BTreeSet<String>>, expr: &str) -> Vec<String> {
    let of = named(expr);
    let mut wrong = Vec::new();
    let mut all = BTreeSet::new();
    if of.metrics.is_empty() {
        wrong.push("no metric".to_owned());
    }
    for (metric, labels) in &of.metrics {
        if OWN.contains(&metric.as_str()) {
            return Vec::new();
        }
        let Some(has) = known.get(metric) else {
            wrong.push(metric.clone());
            continue;
        };
        wrong.extend(labels.iter().filter(|label| !has.contains(*label)).map(|label| format!("{metric}: {label}")));
        all.extend(has);
    }
    wrong.extend(of.groups.iter().filter(|label| !all.contains(label)).map(|label| format!("by {label}")));
    wrong
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    if !installed("promtool") {
        return;
    }
    promtool(&["check", "rules", "rules.yaml"]).unwrap();
    promtool(&["test", "rules", "tests.yaml"]).unwrap();
    let directory = Directory::new();
    directory.write("rules.yaml", &read("prometheus/rules.yaml").replace("> 14.4 * 0.001", "> 144 * 0.001"));
    let tests = directory.write("tests.yaml", &read("prometheus/tests.yaml"));
    promtool(&["test", "rules", &tests.to_string_lossy()]).expect_err("a threshold that is wrong is found");
}

#[test]
fn every_alert_is_tested_and_has_an_entry_in_the_runbook() {
    let linters = Linters::install();
    let (runbook, tests) = (read("prometheus/RUNBOOK.md"), read("prometheus/tests.yaml"));
    let rules = rules(&linters);
    let alerts: Vec<_> = rules.iter().filter(|rule| !rule.value["alert"].is_null()).collect();
    for alert in &alerts {
        let (name, annotations) = (&alert.name, &alert.value["annotations"]);
        let anchor = format!("deploy/prometheus/RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook"], *anchor);
        assert!(annotations["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{name}");
        assert!(["page", "ticket"].contains(&alert.value["labels"]["severity"].as_str().unwrap()), "{name}");
        let entry = runbook.split("\n## ").find(|entry| entry.lines().next() == Some(name));
        assert!(entry.is_some_and(|entry| entry.contains("\n- Look at: ") && entry.contains("\n- Do: ")), "{name}");
        assert!(tests.contains(&format!("runbook: {anchor}\n")), "{name} never fires in the tests");
    }
    assert_eq!(runbook.matches("\n## ").count(), alerts.len(), "each entry is of an alert");
}

#[test]
fn the_runbook_names_what_there_is() {
    /// CloudWatch's own.
    const OTHERS: [&str; 2] = ["Throttles", "ConcurrentExecutions"];
    // The table of metrics is compared with the source elsewhere.
    let mut known = read("METRICS.md") + &read("prometheus/rules.yaml");
    let mut rooms = vec![deploy("../src")];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(room).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => rooms.push(path),
                false => known += &fs::read_to_string(&path).unwrap(),
            }
        }
    }
    let runbook = read("prometheus/RUNBOOK.md");
    let quoted = runbook.split('`').skip(1).step_by(2).filter(|quoted| !OTHERS.contains(quoted) && *quoted != "-");
    for quoted in quoted {
        // Settings and commands are told by their parts.
        let words = if quoted.starts_with("lambda-policy ") { quoted.split(' ').collect() } else { vec![quoted] };
        for word in words.into_iter().filter(|word| *word != "FILE") {
            let parts = if word.starts_with("lambda_policy_") { vec![word] } else { word.split('.').collect() };
            let is_known = |part: &str| known.contains(part.trim_end_matches('*').trim_start_matches("--"));
            assert!(parts.into_iter().all(is_known), "`{quoted}`");
        }
    }
    let dashboard = dashboard();
    let titles: Vec<_> = dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["title"].as_str()).collect();
    for quoted in runbook.split('"').skip(1).step_by(2) {
        assert!(titles.contains(&Some(quoted)), "the dashboard has nothing that is called {quoted}");
    }
}

#[test]
fn rules_and_dashboard_name_metrics_and_labels_that_there_are() {
    let rules = rules(&Linters::install());
    let known = known(&rules);
    let dashboard = queries(&dashboard());
    let expressions = rules.iter().map(|rule| (&rule.name, &rule.expr));
    for (place, expr) in expressions.chain(dashboard.iter().map(|(title, expr)| (title, expr))) {
        assert_eq!(strange(&known, expr), Vec::<String>::new(), "{place}: {expr}");
    }
    for (wrong, found) in [
        ("rate(lambda_policy_call_total[5m])", "lambda_policy_call_total"),
        ("lambda_policy_calls_total{kind=\"a\"}", "lambda_policy_calls_total: kind"),
        ("sum by (worker) (rate(lambda_policy_calls_total[5m]))", "by worker"),
        ("job_policy:lambda_policy_calls:rate5m{instance=\"a\"}", "job_policy:lambda_policy_calls:rate5m: instance"),
    ] {
        assert_eq!(strange(&known, wrong), [found]);
    }
    let shown: BTreeSet<_> =
        dashboard.iter().flat_map(|(_, expr)| named(expr).metrics).map(|(metric, _)| metric).collect();
    let recorded = rules.iter().filter(|rule| !rule.value["record"].is_null());
    let used: BTreeSet<_> = rules.iter().flat_map(|rule| named(&rule.expr).metrics).map(|(metric, _)| metric).collect();
    for rule in recorded {
        assert!(shown.contains(&rule.name) || used.contains(&rule.name), "{} is of no use", rule.name);
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    /// Of no use to whoever looks for what is wrong.
    const NOT_SHOWN: &str = "process_memory_virtual_bytes";
    let names = |expr: &str| named(expr).metrics.into_iter().map(|(metric, _)| metric).collect::<Vec<_>>();
    let mut shown: BTreeSet<_> = queries(&dashboard()).iter().flat_map(|(_, expr)| names(expr)).collect();
    // A rule is recorded before those that use it.
    for rule in rules(&Linters::install()).iter().rev().filter(|rule| !rule.value["record"].is_null()) {
        if shown.contains(&rule.name) {
            shown.extend(names(&rule.expr));
        }
    }
    let is_shown = |name: &str| ["", "_bucket", "_count"].iter().any(|of_it| shown.contains(&format!("{name}{of_it}")));
    let missing: Vec<_> = ALL.iter().map(|metric| metric.prometheus()).filter(|name| !is_shown(name)).collect();
    assert_eq!(missing, [NOT_SHOWN]);
}

#[test]
fn the_operators_rules_are_the_same() {
    let linters = Linters::install();
    let mut rules = linters.documents(&read("prometheus/rules.yaml")).remove(0);
    let mut resource = linters.documents(&read("kubernetes/components/prometheus/prometheusrule.yaml")).remove(0);
    assert_eq!(resource["spec"]["groups"].take(), rules["groups"].take());
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} is outside");
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "{title} lies over another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(["timeseries", "stat"].contains(&panel["type"].as_str().unwrap()), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), targets.len(), "{title}");
        for target in targets {
            let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(expr.contains("$job"), "{title}: {expr}");
            assert!(!expr.contains("rate(") || expr.contains("[$__rate_interval]"), "{title}: {expr}");
            for label in legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
                let grouped = !expr.contains(" by (") || named(expr).groups.iter().any(|group| group == label);
                assert!(grouped, "{title}: {expr} has no {label}");
            }
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "policy"]);
    for (place, expr) in queries(&dashboard) {
        for variable in
            expr.split('$').skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        {
            assert!(variable.is_some_and(|name| name == "__rate_interval" || names.contains(&name)), "{place}: {expr}");
        }
    }
    let fixed = variables.iter().chain(dashboard["annotations"]["list"].as_array().unwrap());
    for asks in fixed.filter(|asks| asks["type"] != "datasource") {
        assert_eq!(asks["datasource"]["uid"], "${datasource}", "{}", asks["name"]);
    }
}

/// A Prometheus with the scrape configuration of the compose file, on the service under test; it ends when it is dropped.
struct Prometheus {
    child: Child,
    address: String,
    _directory: Directory,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    async fn start(target: &str) -> Self {
        let directory = Directory::new();
        let replaced = [
            ("scrape_interval: 5s", "scrape_interval: 1s".to_owned()),
            ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
            ("/etc/prometheus-rules/rules.yaml", deploy("prometheus/rules.yaml").to_string_lossy().into_owned()),
            ("lambda-policy:9464", target.to_owned()),
        ];
        let shipped = read("compose/prometheus/prometheus.yaml");
        let mut text = shipped.split("  - job_name: envoy\n").next().unwrap().to_owned();
        for (shipped, here) in replaced {
            assert_eq!(text.matches(shipped).count(), 1, "{shipped}");
            text = text.replace(shipped, &here);
        }
        let file = directory.write("prometheus.yaml", &text);
        let address = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().to_string();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.0.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, address, _directory: directory };
        eventually("Prometheus", async || tokio::net::TcpStream::connect(&this.address).await.ok()).await;
        this
    }

    /// What a query finds.
    async fn ask(&self, query: &str) -> Vec<Value> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let (_, _, text) = admin(&self.address, "GET", &format!("/api/v1/query?query={query}"), "*/*", "").await;
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(answer["status"], "success", "{query}: {text}");
        serde_json::from_value(answer["data"]["result"].take()).unwrap()
    }

    /// The exemplars of the series that a query names, of the last minutes.
    async fn exemplars(&self, query: &str) -> Vec<Value> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let path = format!("/api/v1/query_exemplars?query={query}&start={}&end={}", now - 600, now + 60);
        let (_, _, text) = admin(&self.address, "GET", &path, "*/*", "").await;
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_default();
        serde_json::from_value(answer["data"].take()).unwrap()
    }

    /// The value of the only series that a query finds.
    async fn value(&self, query: &str) -> Option<f64> {
        self.ask(query).await.first()?["value"][1].as_str()?.parse().ok()
    }
}

/// A query as Grafana sends it with every variable at "All".
fn filled(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m");
    ["$job", "$instance", "$policy"].iter().fold(query, |query, variable| query.replace(variable, ".*"))
}

fn inline() -> ExecutePolicyRequest {
    let lambda = LambdaPolicy {
        function: "echo".into(),
        aws_access_key_id: lambda_policy::local::Lambda::KEY_ID.into(),
        aws_secret_access_key: lambda_policy::local::Lambda::SECRET.into(),
        ..Default::default()
    };
    ExecutePolicyRequest { lambda: Some(lambda), ..request("", "{}") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_answers_every_query_of_the_dashboard() {
    if !installed("prometheus") {
        return;
    }
    let lambda = lambda().await;
    let key = lambda_policy::local::Lambda::KEY_ID;
    let secret = lambda_policy::local::Lambda::SECRET;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let policies = format!(
        "  echo: {{function: 'echo:live', breaker: {{failures: 3, open: 1m}}}}\n  fail: {{function: fail}}\n  busy: {{function: context}}\n  \
         gone: {{function: echo, endpoint: {{url: 'http://localhost:{closed}'}}}}\n  \
         role: {{function: echo, credentials: {{access_key_id: {key}, secret_access_key: {secret}, \
         assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r'}}}}}}\n"
    );
    // Nobody takes the spans, but calls have some.
    let telemetry = telemetry(&format!("127.0.0.1:{closed}"), "{ratio: 1}");
    let text = telemetry + &config(&lambda, "inline_policies: allow", &policies);
    let service = Service::start_with(&text, None).await;
    lambda.add_fault("context=throttle:1000".parse().unwrap());
    let prometheus = Prometheus::start(&service.admin).await;
    let calls = async || {
        for policy in ["echo", "echo", "role"] {
            service.json(policy, "{}").await.unwrap();
        }
        service.json("fail", "{}").await.unwrap();
        service.call(inline()).await.unwrap();
        admin(&service.address, "GET", "/v1/policies", "*/*", "").await;
        for policy in ["busy", "gone", "nobody"] {
            service.json(policy, "{}").await.unwrap_err();
        }
    };
    // Prometheus sees growth only between two scrapes; the last call is in the first of them.
    calls().await;
    let seen = "lambda_policy_calls_total{reason=\"POLICY_NOT_FOUND\"}";
    eventually("a scrape", async || prometheus.value(seen).await).await;
    calls().await;
    let failed = "job_policy:lambda_policy_calls_failed:ratio_rate5m{policy=\"gone\"}";
    eventually("the rules", async || prometheus.value(failed).await).await;
    let quantile = "job_policy:rpc_client_call_duration_seconds:quantile5m{policy=\"echo\", quantile=\"0.99\"} >= 0";
    eventually("the quantiles", async || prometheus.value(quantile).await).await;

    assert_eq!(prometheus.value(failed).await, Some(1.0));
    for (policy, expected) in [("echo", 0.0), ("inline", 0.0), ("busy", 1.0)] {
        let query = format!("job_policy:lambda_policy_calls_failed:ratio_rate5m{{policy=\"{policy}\"}}");
        assert_eq!(prometheus.value(&query).await, Some(expected), "{policy}");
    }
    let unknown = "job_policy:lambda_policy_calls_failed:ratio_rate5m{policy=\"_unknown\"}";
    assert_eq!(prometheus.value(unknown).await, None, "the callers' own fault");
    let exemplars = prometheus.exemplars("lambda_policy_call_duration_seconds_bucket{policy=\"echo\"}").await;
    let trace = exemplars[0]["exemplars"][0]["labels"]["trace_id"].as_str().unwrap();
    assert_eq!((trace.len(), exemplars[0]["seriesLabels"]["policy"].as_str()), (32, Some("echo")));
    for (title, query) in queries(&dashboard()) {
        match query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')) {
            Some(values) => {
                let (series, label) = values.rsplit_once(", ").unwrap();
                let found = prometheus.ask(&filled(&format!("count by ({label}) ({series})"))).await;
                assert!(found.iter().all(|series| series["metric"][label].is_string()) && !found.is_empty(), "{title}");
            }
            // Without TLS there is no certificate.
            None if title == "Certificates expire in" => assert!(prometheus.ask(&filled(&query)).await.is_empty()),
            // No alert fires so soon; all else has data once each group of rules was evaluated.
            None if title == "Alerts" => assert!(prometheus.ask(&filled(&query)).await.is_empty()),
            None => {
                let found = async || (!prometheus.ask(&filled(&query)).await.is_empty()).then_some(());
                eventually(&format!("{title}: {query}"), found).await;
            }
        }
    }
    for rule in rules(&Linters::install()) {
        prometheus.ask(&rule.expr).await;
    }
}
