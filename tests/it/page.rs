//! The page for people at the admin port: what it may do, what it shows of what goes wrong, and who else may ask there.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use lambda_policy::{
    error::Kind,
    local::Lambda,
    pb::{ExecutePolicyRequest, HttpRequest, execute_policy_request::Input},
    telemetry::names::{FUNCTION_ERRORS, GIVEN_UP},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Directory, Service, admin, browser::Browser, config, eventually, execute, lambda, request};

/// A name and ids as somebody would have them who wants to run a script on an operator's page.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&amp;</script><script>alert(2)</script>\u{202e}";

/// An answer's head and body.
async fn ask(address: &str, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("{line} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn shown(service: &Service, path: &str) -> Value {
    let (status, kind, body) = admin(&service.admin, "GET", path, "*/*", "").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}: {body}");
    assert!(!body.contains(Lambda::SECRET), "{path} has a secret: {body}");
    serde_json::from_str(&body).unwrap()
}

fn row<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let found = shown["policies"].as_array().unwrap().iter().find(|policy| policy["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not among {shown}"))
}

fn with_id(policy: &str, id: &str) -> ExecutePolicyRequest {
    let http = HttpRequest { method: "GET".into(), path: "/".into(), request_id: id.into(), ..Default::default() };
    ExecutePolicyRequest { input: Some(Input::Http(http)), ..request(policy, "") }
}

#[tokio::test]
async fn the_page_may_do_nothing_but_ask_its_own_port() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let (status, head, body) = ask(&service.admin, &format!("GET {path}"), &[("host", "localhost")], "").await;
        assert_eq!(status, 200, "{path}");
        for header in [
            format!("content-type: {kind}"),
            "x-content-type-options: nosniff".to_owned(),
            "referrer-policy: no-referrer".to_owned(),
            "cross-origin-resource-policy: same-origin".to_owned(),
        ] {
            assert!(head.contains(&header), "{path}: {header}: {head}");
        }
        let policy = head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        let outside = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "{path} names another place");
        assert!(!outside.contains("innerHTML") && !outside.contains("style="), "{path}");
    }
    let (_, head, _) = ask(&service.admin, "GET /status", &[("host", "localhost")], "").await;
    assert!(head.contains("cache-control: no-store"), "{head}");
}

#[tokio::test]
async fn a_page_of_another_site_changes_and_reads_nothing() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let own = ("host", service.admin.as_str());
    for (sentence, line, headers, expected) in [
        ("a program", "PUT /log-level", &[own][..], 409),
        ("a script of another site", "PUT /log-level", &[own, ("origin", "https://evil.example")], 403),
        (
            "a form of another site",
            "POST /log-level",
            &[own, ("origin", "null"), ("sec-fetch-site", "cross-site")],
            403,
        ),
        (
            "a name that was made to point here",
            "PUT /log-level",
            &[("host", "evil.example:9464"), ("origin", "http://evil.example:9464")],
            403,
        ),
        ("the same, reading", "GET /config", &[("host", "evil.example:9464")], 421),
        ("the same, opening the page", "GET /", &[("host", "evil.example")], 421),
        ("the same in the request's line", "GET http://evil.example/config", &[own], 421),
        ("a probe", "GET /readyz", &[("host", "10.0.0.1:9464")], 200),
        ("a person", "GET /policies", &[("host", "localhost:9464"), ("sec-fetch-site", "none")], 200),
    ] {
        let (status, head, body) = ask(&service.admin, line, headers, "warn").await;
        assert_eq!(status, expected, "{sentence}: {body}");
        assert!(!head.contains("access-control"), "{sentence}: {head}");
        assert!(status == 200 || !body.contains("echo"), "{sentence}: {body}");
    }
}

#[tokio::test]
async fn each_of_ten_faults_is_told_by_policy_and_reason() {
    let lambda = lambda().await;
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let keys = format!("access_key_id: {}, secret_access_key: {}", Lambda::KEY_ID, Lambda::SECRET);
    let directory = Directory::new();
    let secret = directory.write("secret", Lambda::SECRET);
    let policies = format!(
        "  throttled: {{function: greet}}
  unreachable: {{function: echo, endpoint: {{url: 'http://{closed}'}}}}
  wrong-key: {{function: echo, credentials: {{access_key_id: {}, secret_access_key: wrong}}}}
  no-sts: {{function: echo, sts_endpoint: 'http://{closed}', credentials: {{{keys}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r'}}}}}}
  broken: {{function: 'large', breaker: {{failures: 3, open: 60s}}}}
  fails: {{function: fail}}
  garbled: {{function: echo, event: alb}}
  busy: {{function: slow, max_in_flight: 1}}
  late: {{function: 'slow:live', timeout: 150ms}}
  missing: {{function: nothing}}
  secretive: {{function: echo, credentials: {{access_key_id: {}, secret_access_key: {{file: '{}'}}}}}}
",
        Lambda::KEY_ID,
        Lambda::KEY_ID,
        secret.display()
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, b"token-of-kong");
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let policies = format!("{policies}  private: {{function: echo, callers: []}}\n");
    let text = config(&lambda, "", &policies).replace("defaults:\n", "defaults:\n  callers: [kong]\n");
    let text = format!("callers:\n  kong: {{tokens: [{digest}]}}\n{text}");
    let file = directory.write("policies.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;

    let told = async |call: ExecutePolicyRequest| {
        let mut call = tonic::Request::new(call);
        call.metadata_mut().insert("x-lambda-policy-authorization", "Bearer token-of-kong".parse().unwrap());
        let client = service.client.clone();
        execute(&client, call).await
    };
    let call = async |policy: &str, json: &str| told(request(policy, json)).await;
    let _ = told(with_id("garbled", "")).await;
    lambda.add_fault("greet=throttle:7".parse().unwrap());
    lambda.add_fault("large=error".parse().unwrap());
    for policy in ["throttled", "unreachable", "wrong-key", "no-sts", "fails", "missing", "private", "nobodys"] {
        let _ = call(policy, "{}").await;
    }
    for _ in 0..4 {
        let _ = call("broken", "{}").await;
    }
    let _ = tokio::join!(call("busy", r#"{"ms": 600}"#), call("busy", r#"{"ms": 600}"#), call("late", "{}"));
    std::fs::remove_file(&secret).unwrap();
    directory.write("policies.yaml", &format!("{text}# changed\n"));

    let status = eventually("the refusal", async || {
        let status = shown(&service, "/status").await;
        (status["configuration"]["refused"] != 0).then_some(status)
    })
    .await;
    let reload = &status["configuration"]["last_reload"];
    assert_eq!((&reload["accepted"], &status["configuration"]["generation"]), (&json!(false), &json!(1)));
    let why = reload["error"].as_str().unwrap();
    assert!(why.contains("secretive.credentials.secret_access_key") && why.contains("secret"), "{why}");
    assert!(status["hosts"][0]["failed"].as_u64().is_some_and(|failed| failed > 0), "{status}");

    let shown = shown(&service, "/policies?order=worst&history=true").await;
    for (policy, condition, reason, says) in [
        ("throttled", "failing", "FUNCTION_THROTTLED", "takes no more calls"),
        ("unreachable", "failing", "LAMBDA_UNREACHABLE", "no connection"),
        ("wrong-key", "failing", "CREDENTIALS_REJECTED", "check the keys"),
        ("no-sts", "failing", "CREDENTIALS_UNAVAILABLE", "no credentials"),
        ("broken", "breaker open", "BREAKER_OPEN", "left alone"),
        ("fails", "failing", "unhandled", ""),
        ("garbled", "failing", "malformed", "statusCode is missing"),
        ("busy", "failing", "OVERLOADED", "max_in_flight"),
        ("late", "failing", "TIMEOUT", "the policy's `timeout` of "),
        ("missing", "failing", "FUNCTION_NOT_FOUND", "no such function"),
        ("private", "errors", "CALLER_DENIED", ""),
        ("_unknown", "errors", "POLICY_NOT_FOUND", "no policy"),
    ] {
        let row = row(&shown, policy);
        let last = &row["calls"]["last_errors"][0];
        assert_eq!((&row["condition"], &last["reason"]), (&json!(condition), &json!(reason)), "{policy}: {row}");
        assert!(row["calls"]["by_reason"][reason].as_u64().is_some_and(|count| count > 0), "{policy}: {row}");
        assert!(last["error"].as_str().unwrap_or_default().contains(says), "{policy}: {last}");
    }
    assert_eq!(row(&shown, "_unknown")["calls"]["last_errors"][0]["detail"], "the call names `nobodys`");
    let broken = &row(&shown, "broken")["calls"]["last_errors"];
    assert_eq!((&broken[1]["reason"], &broken[1]["count"]), (&json!("LAMBDA_FAILED"), &json!(3)), "why it opened");
    let opens = [0, 1].map(|at| broken[at]["opens_breakers"].clone());
    assert_eq!(opens, [json!(false), json!(true)]);
    let types = ["fails", "garbled"].map(|policy| &row(&shown, policy)["calls"]["last_errors"][0]["error_type"]);
    assert_eq!(types, [&json!("OrderError"), &json!(null)]);
    let failure = &row(&shown, "no-sts")["credentials"]["failure"];
    assert_eq!((&failure["failures"], &failure["rejected"]), (&json!(1), &json!(false)));
    assert_eq!(shown["policies"][0]["name"], "broken", "the worst first");
    assert_eq!(row(&shown, "secretive")["condition"], "idle");
}

#[test]
fn the_page_says_what_can_be_done_about_every_reason() {
    let script = include_str!("../../src/http/page/page.js");
    for reason in Kind::ALL.iter().map(|kind| kind.reason()).chain(FUNCTION_ERRORS).chain([GIVEN_UP]) {
        assert!(script.contains(&format!("\n  {reason}: \"")), "{reason}");
    }
}

#[tokio::test]
async fn one_page_of_ten_thousand_policies_is_small_and_soon_there() {
    let lambda = lambda().await;
    let policies: String = (0..10_000).map(|n| format!("  p{n}: {{function: echo}}\n")).collect();
    let service = Service::start(&lambda, &policies).await;
    service.json("p7777", "{}").await.unwrap();
    lambda.add_fault("echo=deny*1".parse().unwrap());
    service.json("p3333", "{}").await.unwrap_err();
    let began = Instant::now();
    let shown = shown(&service, "/policies?order=worst&history=true&limit=200").await;
    let took = began.elapsed();
    assert_eq!((&shown["all"], &shown["matching"]), (&json!(10_000), &json!(10_000)));
    let names: Vec<_> = shown["policies"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), &names[..2]), (200, &["p3333", "p7777"][..]));
    assert!(shown.to_string().len() < 200_000, "{}", shown.to_string().len());
    assert!(took < Duration::from_secs(2), "{took:?}");
    let found = self::shown(&service, "/policies?match=P777&limit=3").await;
    assert_eq!((&found["matching"], found["policies"].as_array().unwrap().len()), (&json!(11), 3));
    let (status, _, why) = admin(&service.admin, "GET", "/policies?limit=many", "*/*", "").await;
    assert_eq!((status, why.as_str()), (400, "`limit` is no number: `many`\n"));
}

#[tokio::test]
#[allow(clippy::print_stderr)]
async fn people_see_in_a_browser_what_is_wrong() {
    let Some(mut browser) = Browser::start().await else {
        assert!(std::env::var_os("CI").is_none(), "chromium is not installed");
        eprintln!("chromium is not installed, so the page was not looked at");
        return;
    };
    let lambda = lambda().await;
    let role = format!(
        "{{access_key_id: {}, secret_access_key: {}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/gateway'}}}}",
        Lambda::KEY_ID,
        Lambda::SECRET
    );
    let hostile = HOSTILE.replace('"', "\\\"").replace('\u{202e}', "\\u202e");
    let policies = format!(
        "  orders: {{function: 'echo:live', title: Orders, credentials: {role}}}
  payments: {{function: large, title: Payments, breaker: {{failures: 3, open: 60s}}}}
  search: {{function: slow, title: Search, timeout: 300ms, max_in_flight: 20}}
  invoices: {{function: fail, title: \"{hostile}\"}}
  stock: {{function: greet, title: Stock levels}}
  returns: {{function: context, title: Returns}}
"
    );
    let directory = Directory::new();
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let telemetry =
        format!("telemetry: {{otlp: {{endpoint: 'http://{closed}', interval: 1s}}, traces: {{ratio: 1}}}}\n");
    let text = telemetry + &config(&lambda, "", &policies);
    let file = directory.write("policies.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;
    lambda.add_fault("large=error".parse().unwrap());
    for number in 0..4 {
        if number == 3 {
            let _ = service.json("payments", "no JSON, which opens no breaker").await;
        }
        let _ = service.call(with_id("payments", "the-request-of-payments")).await;
    }
    for ms in [1, 40, 80, 120, 5000] {
        let _ = service.json("search", &format!("{{\"ms\": {ms}}}")).await;
    }
    // The newest error of the policy, and none of its own.
    let _ = service.json("search", "no JSON").await;
    let _ = service.call(with_id("invoices", HOSTILE)).await;
    let _ = service.call(with_id(HOSTILE, "none")).await;
    for _ in 0..30 {
        service.json("orders", "{}").await.unwrap();
        service.json("stock", "{}").await.unwrap();
    }
    lambda.add_fault("greet=throttle:7*1".parse().unwrap());
    let _ = service.call(with_id("stock", "the-request-of-stock")).await;
    directory.write("policies.yaml", &text.replace("title: Orders", "titel: Orders"));
    eventually("the refusal", async || {
        (shown(&service, "/status").await["configuration"]["refused"] != 0).then_some(())
    })
    .await;

    admin(&service.address, "GET", "/v1/policy/orders/http/", "*/*", "").await;

    let base = format!("http://{}/", service.admin);
    browser.look(1440, 900, "light").await;
    browser.open(&base).await;
    browser.until("document.querySelectorAll('#policies > tbody').length === 7").await;
    browser.until("document.querySelector('#notices pre')?.textContent.includes('titel') ?? false").await;
    let unpushed = format!("The last push of metrics to http://{closed} failed");
    browser.until(&format!("document.getElementById('notices').innerText.includes('{unpushed}')")).await;
    browser.until("document.getElementById('notices').innerText.includes('Spans are lost')").await;
    browser
        .until("document.getElementById('notices').innerText.includes('for paths at which nothing is served')")
        .await;
    let quantiles = browser.value("document.querySelectorAll('#tiles dd')[2].textContent").await;
    assert!(quantiles.as_str().unwrap().contains("\u{a0}ms"), "a number and its unit stay together: {quantiles}");
    let text = browser.value("document.body.innerText").await;
    for expected in [
        "payments",
        "orders",
        "Stock levels",
        "breaker open",
        "BREAKER_OPEN after LAMBDA_FAILED",
        "the-request-of-payments",
        "FUNCTION_THROTTLED",
        "TIMEOUT",
        "OrderError",
        "POLICY_NOT_FOUND",
        HOSTILE,
    ] {
        assert!(text.as_str().unwrap().contains(expected), "{expected}: {text}");
    }
    let first = browser.value("document.querySelector('#policies > tbody button.open').textContent").await;
    assert_eq!(first, "payments", "the worst first");
    let drawn = "document.querySelectorAll('#policies .spark path.calls[d^=M]').length";
    assert_eq!(browser.value(drawn).await, 6, "every policy that was called has a sparkline");
    browser.value("document.querySelector('#policies button.open').click()").await;
    browser.until("document.querySelector('tr.more:not([hidden])').innerText.includes('LAMBDA_FAILED')").await;

    for width in [1381, 1380, 1300, 700, 320] {
        browser.look(width, 900, "light").await;
        fits(&mut browser).await;
        let rows = "new Set([...document.querySelectorAll('#tiles > div')].map((tile) => tile.offsetTop)).size";
        assert!(width <= 1380 || browser.value(rows).await == 1, "the tiles are one row");
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, width, height, scheme) in [
        ("page.png", 1440, 900, "light"),
        ("page-dark.png", 1440, 900, "dark"),
        ("page-narrow.png", 390, 1600, "light"),
        ("page-narrow-dark.png", 390, 1600, "dark"),
    ] {
        browser.look(width, height, scheme).await;
        browser.until(&format!("innerWidth === {width}")).await;
        fits(&mut browser).await;
        let bytes = browser.draw(&out.join(name)).await;
        assert!(bytes > 40_000, "{name} is nearly blank: {bytes} bytes");
    }

    browser.value("{const match = document.getElementById('match'); match.value = 'PAY'; match.dispatchEvent(new Event('input'))}").await;
    browser.until("document.querySelectorAll('#policies > tbody').length === 1").await;
    assert_eq!(browser.value("document.getElementById('shown').textContent").await, "1 of 7, the worst first");
    assert_eq!(browser.complaints, Vec::<String>::new());
    for url in &browser.requests {
        assert!(url.starts_with(&base) || url == "about:blank", "{url} is somewhere else");
    }
    drop(service);
    browser.until("document.getElementById('fresh').textContent.startsWith('No answer since')").await;
}

#[tokio::test]
async fn people_see_that_an_issuers_keys_cannot_be_fetched() {
    let lambda = lambda().await;
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/keys");
    let callers = format!("callers: {{ci: {{jwt: {{issuer: a, audience: b, jwks_url: '{url}'}}}}}}\n");
    let text = callers + &config(&lambda, "", "  echo: {function: echo, callers: ci}\n");
    let service = Service::start_with(&text, None).await;
    let issuer = eventually("a failure", async || {
        let issuer = shown(&service, "/status").await["issuers"][0].clone();
        (!issuer["failing"].is_null()).then_some(issuer)
    })
    .await;
    assert_eq!((&issuer["caller"], &issuer["url"], &issuer["known"]), (&json!("ci"), &json!(url), &json!(false)));
    assert!(issuer["failing"]["error"].as_str().unwrap().contains("refused"), "{issuer}");
    let Some(mut browser) = Browser::start().await else { return };
    browser.open(&format!("http://{}/", service.admin)).await;
    let notice = format!("The keys for tokens of ci could not be fetched from {url} for");
    browser.until(&format!("document.getElementById('notices')?.innerText.includes({})", json!(notice))).await;
}

/// Nothing is wider than the window, or than its tile.
async fn fits(browser: &mut Browser) {
    let widths =
        browser.value("(({clientWidth, scrollWidth}) => [clientWidth, scrollWidth])(document.documentElement)");
    let widths = widths.await;
    assert_eq!(widths[0], widths[1]);
    let cut = "[...document.querySelectorAll('#tiles dd')].filter((tile) => tile.scrollWidth > tile.clientWidth).map((tile) => tile.textContent)";
    assert_eq!(browser.value(cut).await, json!([]), "what a tile says can be read");
}
