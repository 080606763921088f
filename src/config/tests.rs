//! What a configuration file means, and what each mistake in it says.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use super::*;
use crate::policy::{Invocation, Log};

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(text, Path::new("f.yaml")).map_err(|faults| faults.to_string().lines().map(str::to_owned).collect())
}

fn fault(text: &str) -> String {
    let faults = parse(text).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap()
}

/// A file with one policy that has these settings.
fn orders(settings: &str) -> String {
    format!("policies:\n  orders:\n    function: orders\n    region: us-east-1\n    {settings}\n")
}

#[test]
fn an_empty_file_is_a_service_without_policies() {
    let config = parse("").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.admin.to_string(), "127.0.0.1:9464");
    assert!(config.policies.named.is_empty() && config.policies.inline.is_none());
}

#[test]
fn every_setting_of_a_policy_is_taken() {
    let config = parse(
        r"
server:
  listen: 0.0.0.0:1
  plaintext: allow
  max_connection_age: 1h 30m
  inline_policies: allow
  max_in_flight: 7
  drain_delay: 0s
  drain_timeout: 500ms
admin: {listen: '[::1]:2'}
defaults: {region: us-east-1, timeout: 3s, sts_endpoint: 'https://sts.example'}
policies:
  orders:
    title: Place an order
    description: Places it
    function: arn:aws:lambda:eu-west-1:123456789012:function:orders
    qualifier: 3
    qualifiers: [4, canary]
    credentials:
      access_key_id: AKIDEXAMPLE
      secret_access_key: literal
      session_token: token
      assume_role:
        role_arn: arn:aws:iam::123456789012:role/orders
        external_id: 007
        session_name: gateway
        duration: 15m
    event: raw
    invocation: event
    log: tail
    context: {custom: {a: 1, b: true, c: text}}
    tenant: acme
    timeout: 15m
    endpoint: {url: 'https://vpce-1.lambda.eu-west-1.vpce.amazonaws.com'}
  plain: {function: plain, credentials: default, endpoint: {fips: true, dual_stack: true}}
",
    )
    .unwrap();
    assert_eq!(config.server.max_connection_age, Duration::from_secs(5400));
    assert_eq!(config.server.max_in_flight, 7);
    assert_eq!(config.server.drain_timeout, Duration::from_millis(500));
    let orders = &config.policies.named["orders"];
    assert_eq!(orders.target.region.as_str(), "eu-west-1", "the ARN's before the default");
    assert_eq!(orders.target.qualifier.as_ref().unwrap().as_str(), "3");
    assert_eq!(orders.qualifiers.len(), 2);
    assert_eq!(orders.access.credentials().kind(), "keys and role");
    let role = orders.access.credentials().role().unwrap();
    assert_eq!(role.external_id.as_ref().unwrap().as_str(), "007");
    assert_eq!(role.duration.as_secs(), 900);
    assert_eq!((orders.invocation, orders.log), (Invocation::Event, Log::Tail));
    let context = crate::policy::ClientContext::parse(r#"{"custom":{"a":1,"b":true,"c":"text"}}"#).unwrap();
    assert_eq!(orders.context.as_ref(), Some(&context));
    assert_eq!(orders.access.sts_endpoint().unwrap().as_str(), "https://sts.example");
    let plain = &config.policies.named["plain"];
    assert_eq!((plain.title.as_str(), plain.access.credentials().kind()), ("lambda", "default"));
    assert_eq!(plain.timeout.get(), Duration::from_secs(3));
    assert!(config.policies.inline.is_some());
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_would_be_right() {
    let key = "credentials: default";
    for (what, text, expected) in [
        ("a typing error", "polices: {}".into(), "f.yaml:1:1: polices: is not a setting: did you mean `policies`?"),
        ("a name of two lines", "\"a\\nb\u{e9}\": {}".into(), "f.yaml:1:1: a\\nb\u{e9}: is not a setting"),
        ("a foreign key", "http: {}".into(), "f.yaml:1:1: http: is not a setting: expected one of `server`, `admin`, `telemetry`, `defaults`, `callers`, `policies`"),
        ("a wrong type", "server: 1".into(), "f.yaml:1:9: server: is a single value: expected a map of `listen`"),
        ("a list for a word", "server: {listen: [a]}".into(), "f.yaml:1:18: server.listen: is a list: expected a single value"),
        ("no address", "server: {listen: here}".into(), "f.yaml:1:18: server.listen: `here` is not an address and port: expected one such as `127.0.0.1:50051`"),
        ("no number", "server: {max_in_flight: many}".into(), "f.yaml:1:25: server.max_in_flight: `many` is not a whole number from 1 to 1000000"),
        ("too small", "server: {max_in_flight: 0}".into(), "f.yaml:1:25: server.max_in_flight: `0` is not a whole number"),
        ("no duration", "server: {drain_delay: 5}".into(), "f.yaml:1:23: server.drain_delay: `5` is not a duration: expected one such as"),
        ("no collector", "telemetry: {otlp: {}}".into(), "f.yaml:1:19: telemetry.otlp.endpoint: is missing"),
        ("no address of one", "telemetry: {otlp: {endpoint: 'collector:4317'}}".into(), "f.yaml:1:30: telemetry.otlp.endpoint: "),
        ("no share", "telemetry: {otlp: {endpoint: 'http://c:4317'}, traces: {ratio: 1.5}}".into(), "telemetry.traces.ratio: `1.5` is not a number from 0 to 1"),
        ("no word for it", "telemetry: {traces: no}".into(), "telemetry.traces: is a single value: expected `off` or a map of `ratio`"),
        ("too often", "telemetry: {otlp: {endpoint: 'http://c:4317', interval: 10ms}}".into(), "telemetry.otlp.interval: `10ms` is outside of what is possible: expected 1s to 1h"),
        ("no such word", "server: {inline_policies: yes}".into(), "f.yaml:1:27: server.inline_policies: `yes` is none of `deny`, `allow`"),
        ("no YAML", "policies: [".into(), "f.yaml:2:1: is not YAML: "),
        ("an empty value", orders("credentials: default\n    title:"), "f.yaml:6:10: policies.orders.title: is empty"),
        ("no credentials", orders(""), "f.yaml:3:5: policies.orders.credentials: is missing: give `access_key_id`"),
        ("half a pair", orders("credentials: {access_key_id: A}"), "f.yaml:5:18: policies.orders.credentials.secret_access_key: is missing: keys come in pairs"),
        ("an empty pair", orders("credentials: {}"), "f.yaml:5:18: policies.orders.credentials: is empty"),
        ("another word", orders("credentials: mine"), "f.yaml:5:18: policies.orders.credentials: is a single value: expected `default` or a map of"),
        ("an empty secret", orders("credentials: {access_key_id: A, secret_access_key: ''}"), "policies.orders.credentials.secret_access_key: is empty"),
        ("an unset variable", orders("credentials: {access_key_id: A, secret_access_key: {env: LAMBDA_POLICY_TEST_UNSET}}"), "policies.orders.credentials.secret_access_key: the environment variable LAMBDA_POLICY_TEST_UNSET is not set"),
        ("a device", orders("credentials: {access_key_id: A, secret_access_key: {file: /dev/zero}}"), "policies.orders.credentials.secret_access_key: the file /dev/zero cannot be read: it is a device: expected a regular file"),
        ("an unreadable file", orders("credentials: {access_key_id: A, secret_access_key: {file: not/there}}"), "policies.orders.credentials.secret_access_key: the file not/there cannot be read: No such file"),
        ("a secret of two", orders("credentials: {access_key_id: A, secret_access_key: {env: A, file: b}}"), "is no secret: expected text, `{env: NAME}` or `{file: PATH}`"),
        ("no role", orders("credentials: {assume_role: {role_arn: orders}}"), "policies.orders.credentials.assume_role.role_arn: is not a role's ARN"),
        ("a role for a minute", orders("credentials: {assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r', duration: 1m}}"), "policies.orders.credentials.assume_role.duration: is outside of what STS takes"),
        ("no qualifier", orders(&format!("{key}\n    qualifier: v1.2")), "f.yaml:6:16: policies.orders.qualifier: is not a version or alias"),
        ("an endpoint where credentials are", orders(&format!("{key}\n    endpoint: {{url: 'http://169.254.169.254'}}")), "policies.orders.endpoint.url: is a link-local address"),
        ("STS there", orders(&format!("{key}\n    sts_endpoint: 'http://[fd00:ec2::254]'")), "policies.orders.sts_endpoint: is a link-local address"),
        ("an address that others reach", "server: {listen: '0.0.0.0:50051'}".into(), "f.yaml:1:18: server.listen: other machines can connect to 0.0.0.0:50051, and there is no TLS: set `tls`, or `plaintext: allow`"),
        ("the same in IPv6", "server: {listen: '[::]:50051', plaintext: deny}".into(), "server.listen: other machines can connect to [::]:50051"),
        ("a socket without a file", "server: {listen: 'unix:'}".into(), "server.listen: names no file: expected one such as `unix:/run"),
        ("no mode", "server: {listen: 'unix:/s', socket_mode: rw}".into(), "server.socket_mode: `rw` is no mode of a file"),
        ("a timeout above 15 minutes", orders(&format!("{key}\n    timeout: 16m")), "policies.orders.timeout: is not a timeout"),
        ("two endpoints", orders(&format!("{key}\n    endpoint: {{url: 'https://a', fips: true}}")), "policies.orders.endpoint: names an address and a variant"),
        ("no address", orders(&format!("{key}\n    endpoint: {{url: localhost}}")), "policies.orders.endpoint.url: is not an address"),
        ("no JSON object", orders(&format!("{key}\n    context: '[1]'")), "policies.orders.context: is not a JSON object"),
        ("a policy called inline", "policies: {inline: {function: f, region: us-east-1, credentials: default}}".into(), "f.yaml:1:12: policies.inline: is not a policy's name"),
        ("no function", "policies: {a: {region: us-east-1, credentials: default}}".into(), "f.yaml:1:15: policies.a.function: is missing"),
        ("no region", "policies: {a: {function: f, credentials: default}}".into(), "f.yaml:1:15: policies.a.region: is missing: name one here or under `defaults`"),
        ("another region than the ARN's", "policies: {a: {function: 'arn:aws:lambda:eu-west-1:123456789012:function:f', region: us-east-1, credentials: default}}".into(), "policies.a.region: is us-east-1, but the function's ARN says eu-west-1"),
        ("another qualifier than the suffix", "policies: {a: {function: 'f:live', region: us-east-1, qualifier: canary, credentials: default}}".into(), "policies.a.qualifier: is canary, but the function says live"),
        ("a default that no policy uses", "defaults: {region: mars}".into(), "f.yaml:1:20: defaults.region: is not a region"),
        ("a blank secret", orders("credentials: {access_key_id: A, secret_access_key: '  '}"), "f.yaml:5:56: policies.orders.credentials.secret_access_key: is blank: expected text"),
        ("a token of two lines", orders("credentials: {access_key_id: A, secret_access_key: s, session_token: \"to\\nken\"}"), "policies.orders.credentials.session_token: has a line break"),
        ("no region, which is told once", "policies: {a: {function: f, region: mars, credentials: default}}".into(), "f.yaml:1:37: policies.a.region: is not a region"),
        ("a default region that is none, for a policy without one", "defaults: {region: mars}\npolicies: {a: {function: f, credentials: default}}".into(), "f.yaml:1:20: defaults.region: is not a region"),
        ("a text for a policy", "policies: {b: f}".into(), "f.yaml:1:15: policies.b: is a single value: expected a map of"),
        ("nothing for a policy", "policies: {c: }".into(), "policies.c: is empty: expected a map of"),
        ("connections that end at once", "server: {max_connection_age: 0s}".into(), "f.yaml:1:30: server.max_connection_age: `0s` is outside of what is possible: expected 1s to 24h"),
        ("connections that end sooner than at once", "server: {max_connection_age: 1ns}".into(), "server.max_connection_age: `1ns` is outside"),
        ("connections that never end", "server: {max_connection_age: 18446744073709551615s}".into(), "server.max_connection_age: `584"),
        ("a stop that never comes", "server: {drain_delay: 1000000h}".into(), "server.drain_delay: `114years 28days 4h` is outside of what is possible: expected 0s to 5m"),
        ("a stop after a day", "server: {drain_timeout: 1day}".into(), "server.drain_timeout: `1day` is outside of what is possible: expected 0s to 15m"),
        ("missing TLS files", "server: {tls: {certificate: a.pem, key: a.pem, client_ca: nope.pem}}".into(), ""),
    ] {
        let faults = parse(&text).unwrap_err();
        if expected.is_empty() {
            assert_eq!(faults.len(), 3, "{what}: {faults:#?}");
            continue;
        }
        assert_eq!(faults.len(), 1, "{what}: {faults:#?}");
        assert!(faults[0].contains(expected), "{what}: {}", faults[0]);
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_a_wrong_default_once() {
    let faults = parse(
        "server: {listen: here, drain_delay: x}\ndefaults: {region: mars, timeout: 1d}\npolicies:\n  a: {function: 'a b', \
         credentials: default}\n  b: {function: b, credentials: default, colour: red}\n",
    )
    .unwrap_err();
    assert_eq!(faults.iter().filter(|f| f.contains("defaults.region")).count(), 1, "{faults:#?}");
    for part in ["server.listen", "server.drain_delay", "defaults.timeout", "policies.a.function", "policies.b.colour"]
    {
        assert!(faults.iter().any(|f| f.contains(part)), "{part}: {faults:#?}");
    }
}

#[test]
fn no_fault_of_credentials_hides_another() {
    let faults = parse(&orders(
        "credentials: {access_key_id: {env: LAMBDA_POLICY_TEST_UNSET}, secret_access_key: {file: not/there}, \
         session_token: ' ', assume_role: {role_arn: orders, duration: 1m}}",
    ))
    .unwrap_err();
    let keys = ["access_key_id", "secret_access_key", "session_token", "assume_role.role_arn", "assume_role.duration"];
    assert_eq!(faults.len(), keys.len(), "{faults:#?}");
    for (fault, key) in faults.iter().zip(keys) {
        assert!(fault.contains(&format!("policies.orders.credentials.{key}: ")), "{key}: {fault}");
    }
}

#[test]
fn a_policy_without_credentials_takes_the_defaults() {
    let config = parse("defaults: {region: us-east-1, credentials: default}\npolicies: {a: {function: f}}").unwrap();
    assert_eq!(config.policies.named["a"].access.credentials().kind(), "default");
}

#[test]
fn a_secret_in_a_file_is_read_without_its_last_line_break_and_the_file_is_watched() {
    let directory = std::env::temp_dir().join(format!("lambda-policy-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("key"), "hunter2\n").unwrap();
    let text = orders("credentials: {access_key_id: A, secret_access_key: {file: key}}");
    let config = Config::parse(&text, &directory.join("f.yaml")).unwrap();
    assert_eq!(config.files.paths().collect::<Vec<_>>(), [directory.join("f.yaml"), directory.join("key")]);
    let same = parse(&orders("credentials: {access_key_id: A, secret_access_key: hunter2}")).unwrap();
    assert_eq!(config.policies.named["orders"].access.key(), same.policies.named["orders"].access.key());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn plain_http_to_another_machine_is_worth_a_warning() {
    let config = parse(&orders("credentials: default\n    endpoint: {url: 'http://10.0.0.1'}")).unwrap();
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn faults_and_configurations_print_no_secret() {
    let text = orders("credentials: {access_key_id: 'a b', secret_access_key: hunter2}");
    assert!(!fault(&text).contains("hunter2"));
    let text = orders("credentials: {access_key_id: A, secret_access_key: hunter2}");
    assert!(!format!("{:?}", parse(&text).unwrap()).contains("hunter2"));
}

#[test]
fn rules_for_function_errors_and_picks_are_read_and_their_mistakes_named() {
    let key = "credentials: default\n    ";
    let rules = "on_function_error: [{kind: [timeout, out-of-memory], status: 504}, {type: 'Order*', message: sold (out|off), \
                 status: 409, json: {why: gone}, headers: {x-why: gone}}, {kind: unhandled, status: 500, body: payload}]";
    let config = parse(&orders(&format!("{key}{rules}\n    output: {{id: /body/id}}\n    event: http-api"))).unwrap();
    let policy = &config.policies.named["orders"];
    assert_eq!(policy.on_function_error.len(), 3);
    assert!(!policy.output.is_empty());
    for (wrong, expected) in [
        (
            "on_function_error: [{status: 99}]",
            "orders.on_function_error[0].status: `99` is not a whole number from 200",
        ),
        ("on_function_error: [{}]", "orders.on_function_error[0].status: is missing"),
        ("on_function_error: [{status: 500, kind: [odd]}]", "orders.on_function_error[0].kind: `odd` is no kind"),
        (
            "on_function_error: [{status: 500, message: '('}]",
            "orders.on_function_error[0].message: is not a regular expression",
        ),
        ("on_function_error: [{status: 500, text: a, json: 1}]", "orders.on_function_error[0].body: is said twice"),
        (
            "on_function_error: [{status: 500, headers: {'a b': c}}]",
            "orders.on_function_error[0].headers: header `a b`",
        ),
        ("on_function_error: {status: 500}", "orders.on_function_error: is a map: expected a list"),
        ("output: {id: body}", "orders.output.id: JSON pointer `body` does not begin with `/`"),
        ("event: http-api-v2", "orders.event: `http-api-v2` is none of `raw`, `rest-api`"),
    ] {
        let text = orders(&format!("{key}{wrong}"));
        assert!(fault(&text).contains(expected), "{wrong}: {}", fault(&text));
    }
}

#[test]
fn every_format_is_in_the_table() {
    let schema = schema();
    let policy = &schema["properties"]["policies"]["additionalProperties"];
    let formats = crate::event::Format::ALL.map(crate::event::Format::as_str);
    assert_eq!(policy["properties"]["event"]["enum"], serde_json::json!(formats));
}

#[test]
fn the_schema_knows_what_the_check_knows() {
    let schema = schema();
    let policy = &schema["properties"]["policies"]["additionalProperties"];
    assert_eq!(policy["additionalProperties"], false);
    assert_eq!(policy["required"], serde_json::json!(["function"]));
    assert_eq!(policy["properties"]["log"]["enum"], serde_json::json!(["none", "tail"]));
    assert_eq!(policy["properties"]["credentials"]["oneOf"][0]["const"], "default");
    assert_eq!(schema["properties"]["server"]["properties"]["max_in_flight"]["default"], 1024);
}

#[test]
fn routes_lead_to_policies_of_the_file() {
    let file = |routes: &str| format!("{}routes:\n{routes}", orders("credentials: default"));
    let config = parse(&file("  - {host: api.example.com, path: /orders/*, policy: orders}\n")).unwrap();
    let found = config.policies.routes.find("api.example.com", "/orders/7");
    assert_eq!(found.map(Name::as_str), Some("orders"));
    for (routes, said) in [
        ("  - {path: /x, policy: oders}\n", "7:24: routes[0].policy: `oders` is no policy of this file"),
        ("  - {path: x, policy: orders}\n", "7:12: routes[0].path: is not a path"),
        ("  - {host: 'a:80', policy: orders}\n", "7:12: routes[0].host: is not a host"),
        ("  - {path: /x}\n", "7:5: routes[0].policy: is missing"),
    ] {
        assert!(fault(&file(routes)).starts_with(&format!("f.yaml:{said}")), "{}", fault(&file(routes)));
    }
}

const TOKEN: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn callers_are_those_whom_policies_name() {
    let with = |callers: &str, policy: &str, server: &str| {
        let policies = "defaults: {region: us-east-1, credentials: default}\npolicies:\n  a: {function: f";
        format!("server: {{inline_policies: allow{server}}}\ncallers: {callers}\n{policies}{policy}}}\n")
    };
    let known = format!("{{kong: {{tokens: {TOKEN}, inline: true}}}}");
    let config = parse(&with(&known, ", callers: kong", "")).unwrap();
    let kong = crate::policy::Caller::from(Name::parse("kong").unwrap());
    let stranger = crate::policy::Caller::default();
    for (caller, may) in [(&kong, true), (&stranger, false)] {
        assert_eq!(config.policies.find(caller, "a").is_ok(), may);
        assert_eq!(config.policies.inline(caller).is_ok(), may);
    }
    let config = parse(&with(&known, "", "")).unwrap();
    assert!(config.policies.find(&kong, "a").is_err(), "nothing named, nothing allowed");
    assert!(config.warnings.iter().any(|warning| warning.starts_with("policies.a: nobody may call it")));
    let open = parse(&orders("credentials: default")).unwrap();
    assert!(open.policies.find(&stranger, "orders").is_ok(), "without callers everybody may");

    let jwt = |text: &str| format!("{{a: {{jwt: {{issuer: 'https://i.example', audience: x{text}}}}}}}");
    for (what, text, expected) in [
        (
            "a name that is none",
            with(&known, ", callers: [kong, koong]", ""),
            "policies.a.callers: `koong` is no caller of this file",
        ),
        (
            "a name without callers",
            orders("credentials: default\n    callers: kong"),
            "policies.orders.callers: `kong` is no caller of this file",
        ),
        ("no callers", with("{}", "", ""), "callers: is empty, by which nobody could call"),
        (
            "nothing to know it by",
            with("{kong: {inline: true}}", "", ""),
            "callers.kong: cannot be known: give `tokens`",
        ),
        ("no digest", with("{kong: {tokens: [secret]}}", "", ""), "callers.kong.tokens: is no digest of a token"),
        (
            "a token of two",
            with(&format!("{{a: {{tokens: {TOKEN}}}, b: {{tokens: [{}]}}}}", TOKEN.to_uppercase()), "", ""),
            "callers.b.tokens: is a's already",
        ),
        (
            "certificates that nobody asks for",
            with("{kong: {certificates: [a.example]}}", "", ""),
            "callers.kong.certificates: needs `server.tls.client_ca`",
        ),
        ("users without a socket", with("{kong: {users: [0]}}", "", ""), "callers.kong.users: needs a Unix socket"),
        (
            "no user",
            with("{kong: {users: [root]}}", "", ", listen: 'unix:/s'"),
            "callers.kong.users: `root` is no user id",
        ),
        ("no keys", with(&jwt(""), "", ""), "callers.a.jwt.jwks_file: is missing: set `jwks_file` or `jwks_url`"),
        (
            "keys that are not there",
            with(&jwt(", jwks_file: nope.json"), "", ""),
            "callers.a.jwt.jwks_file: the file nope.json cannot be read",
        ),
        (
            "keys in the open",
            with(&jwt(", jwks_url: 'http://i.example/keys'"), "", ""),
            "callers.a.jwt.jwks_url: is plain http to another machine",
        ),
        (
            "keys where credentials are",
            with(&jwt(", jwks_url: 'http://169.254.169.254'"), "", ""),
            "callers.a.jwt.jwks_url: is a link-local address",
        ),
        (
            "an HMAC",
            with(&jwt(", jwks_url: 'https://i.example', algorithms: [HS256]"), "", ""),
            "callers.a.jwt.algorithms: `HS256` is no algorithm that is taken",
        ),
        (
            "too much leeway",
            with(&jwt(", jwks_url: 'https://i.example', leeway: 1h"), "", ""),
            "callers.a.jwt.leeway: `1h` is outside",
        ),
        (
            "no audience",
            with("{a: {jwt: {issuer: i, audience: [], jwks_url: 'https://i.example'}}}", "", ""),
            "callers.a.jwt.audience: is empty",
        ),
        (
            "a certificate asked for and from nobody",
            with(&known, "", ", tls: {certificate: a, key: a, client_certificate: optional}"),
            "",
        ),
    ] {
        let faults = parse(&text).unwrap_err();
        if expected.is_empty() {
            assert!(
                faults.iter().any(|fault| fault.contains("server.tls.client_certificate: needs `client_ca`")),
                "{faults:#?}"
            );
            continue;
        }
        assert_eq!(faults.len(), 1, "{what}: {faults:#?}");
        assert!(faults[0].contains(expected), "{what}: {}", faults[0]);
    }
}

#[test]
fn who_may_read_along_is_said_with_a_warning_or_not_at_all() {
    let warned = |text: &str| parse(text).unwrap().warnings.len();
    assert_eq!(warned("server: {listen: '0.0.0.0:1', plaintext: allow}"), 1);
    for quiet in [
        "server: {listen: '127.0.0.1:1', plaintext: allow}",
        "server: {listen: '[::1]:1'}",
        "server: {listen: 'unix:/s'}",
    ] {
        assert_eq!(warned(quiet), 0, "{quiet}");
    }
}
