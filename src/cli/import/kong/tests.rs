//! decK files as people and decK itself write them, and what comes of them.

#![allow(clippy::unwrap_used)]

use super::{super::testing::*, *};
use crate::{
    event::Format,
    policy::{Invocation, Log, endpoint::Endpoint},
};

fn environment(name: &str) -> Option<String> {
    (name == "DECK_REGION").then(|| "eu-west-1".to_owned())
}

fn imported(text: &str) -> Outcome {
    Outcome::new(import(text, &environment).unwrap_or_else(|faults| panic!("{faults:?}")), "kong")
}

/// A file with one plugin that has this configuration, and nothing else to be said of it.
fn plugin(config: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: s\n  plugins:\n  - name: aws-lambda\n    config: {{function_name: f, aws_region: us-east-1, awsgateway_compatible: true, is_proxy_integration: true, {config}}}\n"
    )
}

/// The routes as `host path policy`, whether comments or not.
fn routes(outcome: &Outcome) -> Vec<String> {
    let (_, routes) = outcome.file.split_once("routes:\n").unwrap_or_default();
    let mut all = Vec::new();
    for line in routes.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        let (first, entry) = line.strip_prefix("- ").map_or((false, line), |entry| (true, entry));
        let Some((key, value)) = entry.split_once(": ") else { continue };
        if first {
            all.push(String::new());
        }
        if matches!(key, "host" | "path" | "policy") {
            let last: &mut String = all.last_mut().unwrap();
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(value.trim_matches('\''));
        }
    }
    all
}

const FILE: &str = r#"
_format_version: "3.0"
_plugin_configs:
  keys: &keys {aws_key: AKIACLEARTEXT, aws_secret: hunter2, aws_region: us-east-1}
vaults:
- {name: env, prefix: mine, config: {prefix: KONG_}}
services:
- name: shop
  url: http://localhost
  plugins:
  - name: aws-lambda
    config:
      aws_key: '{vault://env/shop-key}'
      aws_secret: '{vault://mine/shop-secret}'
      aws_region: ${{ env "DECK_REGION" }}
      function_name: shop
      forward_request_body: true
      forward_request_headers: true
      forward_request_method: true
      forward_request_uri: true
      is_proxy_integration: true
      unhandled_status: 418
      invocation_type: RequestResponse
      log_type: None
      timeout: 1500
  routes:
  - name: place
    hosts: [api.example.com, '*.example.org']
    paths: [/orders, /orders/archive/]
    plugins:
    - name: aws-lambda
      instance_name: Place Order
      config:
        <<: *keys
        function_name: arn:aws:lambda:us-east-1:123456789012:function:orders:live
        aws_assume_role_arn: arn:aws:iam::123456789012:role/orders
        awsgateway_compatible: true
        is_proxy_integration: true
        host: vpce-1.lambda.us-east-1.vpce.amazonaws.com
        port: 8443
        aws_sts_endpoint_url: https://vpce-1.sts.us-east-1.vpce.amazonaws.com
  - name: browse
    paths: [/]
  - name: other
    paths: [/other]
    plugins: [{name: rate-limiting, config: {minute: 5}}]
routes:
- name: alone
  paths: [/alone]
  service: {name: shop}
consumers:
- username: ada
  plugins:
  - {name: aws-lambda, config: {_config: x, function_name: ada, aws_region: us-east-1, awsgateway_compatible: true, is_proxy_integration: true}}
consumer_groups:
- name: gold
  plugins:
  - {name: aws-lambda, config: {function_name: gold, aws_region: us-east-1, awsgateway_compatible: true, is_proxy_integration: true}}
plugins:
- name: aws-lambda
  _config: keys
  config: {function_name: all, invocation_type: Event, awsgateway_compatible: true, is_proxy_integration: true}
- name: aws-lambda
  route: browse
  config: {function_name: browse, aws_region: us-east-1, invocation_type: DryRun, awsgateway_compatible: true, is_proxy_integration: true, aws_key: null, aws_secret: null}
"#;

#[test]
fn every_plugin_is_found_and_the_service_takes_it() {
    let outcome = imported(FILE);
    let policies = outcome.policies();
    let mut names: Vec<_> = policies.named.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ada", "all", "browse", "gold", "place-order", "shop"]);
    let shop = &policies.named["shop"];
    assert_eq!((shop.event, shop.log, shop.timeout.get().as_millis()), (Format::Kong, Log::None, 1500));
    assert_eq!(shop.target.region.as_str(), "eu-west-1");
    assert_eq!(shop.on_function_error.len(), 1);
    let place = &policies.named["place-order"];
    assert_eq!((place.title.as_str(), place.event, place.log), ("Place Order", Format::KongGateway, Log::Tail));
    assert_eq!(place.timeout.get().as_secs(), 60, "kong's default");
    assert_eq!(place.access.credentials().kind(), "keys and role");
    assert_eq!(place.access.credentials().role().unwrap().session_name.as_str(), "kong");
    assert!(
        matches!(place.access.endpoint(), Endpoint::Url(url) if url.as_str() == "https://vpce-1.lambda.us-east-1.vpce.amazonaws.com:8443")
    );
    assert_eq!(place.access.sts_endpoint().unwrap().as_str(), "https://vpce-1.sts.us-east-1.vpce.amazonaws.com");
    assert_eq!(policies.named["all"].invocation, Invocation::Event);
    assert_eq!(policies.named["all"].access.credentials().kind(), "keys", "from the shared configuration");
    assert_eq!(policies.named["browse"].invocation, Invocation::DryRun);
    assert_eq!(policies.named["browse"].access.credentials().kind(), "default");
    for said in
        ["consumers[0].plugins[0]: holds for some consumers only", "consumer_groups[0].plugins[0]: holds for some"]
    {
        assert!(outcome.listed.iter().any(|line| line.contains(said)), "{:?}", outcome.listed);
    }
    assert_eq!(outcome.listed.len(), 4, "{:#?}", outcome.listed);
}

#[test]
fn no_secret_is_copied_and_those_in_the_environment_keep_their_variables() {
    let outcome = imported(FILE);
    outcome.is_silent_about(&["hunter2", "AKIACLEARTEXT"]);
    for line in [
        "      access_key_id: {env: SHOP_KEY}",
        "      secret_access_key: {env: KONG_SHOP_SECRET}",
        "#   SHOP_KEY: what kong has in {vault://env/shop-key}",
        "#   PLACE_ORDER_SECRET_ACCESS_KEY: the text at line 4",
    ] {
        assert!(outcome.file.contains(&format!("{line}\n")), "{line}: {}", outcome.file);
    }
    let deck = imported(&plugin(
        r#"aws_key: "${{ env \"DECK_KEY\" }}", aws_secret: hunter2, proxy_url: 'http://u:hunter2@proxy'"#,
    ));
    deck.is_silent_about(&["hunter2"]);
    assert!(deck.file.contains("access_key_id: {env: DECK_KEY}"), "{}", deck.file);
    assert!(
        deck.listed[0].contains("config.proxy_url: is not taken over: the service has no proxy"),
        "{:?}",
        deck.listed
    );
}

#[test]
fn routes_lead_to_the_policy_that_kong_would_run() {
    assert_eq!(
        routes(&imported(FILE)),
        [
            "api.example.com /orders/archive/* place-order",
            "api.example.com /orders/* place-order",
            "*.example.org /orders/archive/* place-order",
            "*.example.org /orders/* place-order",
            "/other/* shop",
            "/alone/* shop",
            "/* browse",
            "/* all",
        ]
    );
    let file = |route: &str| {
        format!(
            "services: [{{name: s, routes: [{{name: r, {route}, plugins: [{{name: aws-lambda, config: {{function_name: f, aws_region: us-east-1, awsgateway_compatible: true, is_proxy_integration: true}}}}]}}]}}]"
        )
    };
    for (route, expected, said) in [
        ("hosts: ['a.test:8443']", &["a.test f"][..], ""),
        ("paths: /a", &["/a/* f"], ""),
        ("methods: [GET]", &["/* f"], "routes[0].methods: is not taken over"),
        ("paths: ['~/a/\\d+', /b]", &["/b/* f"], "routes[0].paths[0]: is not taken over: a path here is no regular"),
        ("paths: [/a%20b]", &[], "routes[0].paths[0]: is not taken over"),
        ("hosts: ['a.*'], paths: [/a]", &[], "routes[0].hosts[0]: is not taken over"),
        ("expression: 'http.path == \"/a\"'", &[], "routes[0].expression: is not taken over"),
    ] {
        let outcome = imported(&file(route));
        assert_eq!(routes(&outcome), expected, "{route}: {}", outcome.file);
        assert_eq!(outcome.listed.len(), usize::from(!said.is_empty()), "{route}: {:?}", outcome.listed);
        assert!(outcome.listed.iter().all(|line| line.contains(said)), "{route}: {:?}", outcome.listed);
    }
}

#[test]
fn what_the_service_would_not_take_is_a_comment_and_so_are_its_routes() {
    let file = "services:\n- name: s\n  routes:\n  - paths: [/a]\n    plugins:\n    - name: aws-lambda\n      ENABLED\n      config: {CONFIG, awsgateway_compatible: true, is_proxy_integration: true}\n";
    for (enabled, config, said) in [
        ("enabled: true", "function_name: f", "config.region: is missing"),
        ("enabled: true", "aws_region: us-east-1", "config.function: is missing"),
        (
            "enabled: true",
            "function_name: f, aws_region: '{vault://env/region}'",
            "config.aws_region: is in a vault of kong",
        ),
        (
            "enabled: true",
            "function_name: f, aws_region: '${{ env \"DECK_GONE\" }}'",
            "config.aws_region: is in the environment variable DECK_GONE",
        ),
        (
            "enabled: true",
            "function_name: f, aws_region: us-east-1, host: 'u:hunter2@h'",
            "config.host: has a user in it",
        ),
    ] {
        let outcome = imported(&file.replace("ENABLED", enabled).replace("CONFIG", config));
        outcome.is_silent_about(&["hunter2"]);
        assert!(outcome.policies().named.is_empty(), "{}", outcome.file);
        assert_eq!(outcome.listed.len(), 1, "{:?}", outcome.listed);
        assert!(outcome.listed[0].contains(said), "{said}: {:?}", outcome.listed);
        assert!(outcome.file.contains("# routes:\n  # - path: /a/*\n"), "{}", outcome.file);
    }
    let off = imported(
        &file.replace("ENABLED", "enabled: false").replace("CONFIG", "function_name: f, aws_region: us-east-1"),
    );
    assert!(off.policies().named.is_empty() && off.listed[0].contains("enabled: is false"), "{:?}", off.listed);
    assert_eq!(routes(&off), [""; 0], "kong runs nothing there");
}

#[test]
fn a_dump_says_every_default_and_loses_nothing() {
    let dump = "aws_assume_role_arn: null, aws_imds_protocol_version: v1, aws_key: null, aws_role_session_name: kong, aws_secret: null, \
                aws_sts_endpoint_url: null, awsgateway_compatible_payload_version: '1.0', base64_encode_body: true, disable_https: false, \
                empty_arrays_mode: legacy, forward_request_body: false, forward_request_headers: false, forward_request_method: false, \
                forward_request_uri: false, host: null, invocation_type: RequestResponse, keepalive: 60000, log_type: Tail, port: 443, \
                proxy_url: null, qualifier: null, skip_large_bodies: true, timeout: 60000, unhandled_status: null";
    let (said, unsaid) = (imported(&plugin(dump)), imported(&plugin("qualifier: null")));
    assert_eq!(said.listed, [""; 0]);
    assert_eq!(said.file, unsaid.file);
}

#[test]
fn what_differs_from_kong_is_listed() {
    for (what, config, said) in [
        ("an unknown field", "colour: hunter2", "config.colour: is not taken over: the service has no such setting"),
        ("another keepalive", "keepalive: 1000", "config.keepalive: is not taken over"),
        ("a status of its own", "unhandled_status: 999", "config.unhandled_status: is not taken over: a status here"),
        (
            "a status beside a proxy",
            "unhandled_status: 502",
            "config.unhandled_status: is the answer to every failure now",
        ),
        ("no base64", "base64_encode_body: false", "has `base64_encode_body` off"),
        ("payload 2.0", "awsgateway_compatible_payload_version: '2.0'", "has kong's payload 2.0"),
        ("half a pair", "aws_secret: hunter2", "has one half of a key pair"),
        ("a wrong timeout", "timeout: -5", "config.timeout: is not a timeout"),
        ("a flag that is none", "disable_https: maybe", "config.disable_https: is neither `true` nor `false`"),
    ] {
        let outcome = imported(&plugin(config));
        outcome.is_silent_about(&["hunter2"]);
        assert_eq!(outcome.policies().named.len(), 1, "{what}");
        assert_eq!(outcome.listed.len(), 1, "{what}: {:?}", outcome.listed);
        assert!(outcome.listed[0].contains(said), "{what}: {:?}", outcome.listed);
    }
    let bare = |config: &str| {
        format!("plugins: [{{name: aws-lambda, config: {{function_name: f, aws_region: us-east-1, {config}}}}}]")
    };
    for (config, said) in [
        ("qualifier: a", &["forwards no part of the request"][..]),
        ("is_proxy_integration: true", &["forwards no part", "has `is_proxy_integration`"]),
        (
            "forward_request_body: true, is_proxy_integration: true",
            &["does not forward the request's method, uri, headers:"],
        ),
        ("awsgateway_compatible: true", &["has no `is_proxy_integration`"]),
    ] {
        let outcome = imported(&bare(config));
        assert_eq!(outcome.listed.len(), said.len(), "{config}: {:?}", outcome.listed);
        assert!(said.iter().all(|said| outcome.listed.iter().any(|line| line.contains(said))), "{:?}", outcome.listed);
    }
}

#[test]
fn an_address_is_made_of_host_port_and_scheme() {
    for (config, url) in [
        ("host: lambda.test", "https://lambda.test"),
        ("host: localhost, port: 4566, disable_https: true", "http://localhost:4566"),
        ("port: 8443", "https://lambda.us-east-1.amazonaws.com:8443"),
    ] {
        let outcome = imported(&plugin(config));
        let policies = outcome.policies();
        assert!(
            matches!(policies.named["f"].access.endpoint(), Endpoint::Url(own) if own.as_str() == url),
            "{}",
            outcome.file
        );
    }
    let outcome = imported(
        "plugins: [{name: aws-lambda, config: {function_name: f, host: vpce-1.lambda.eu-west-1.vpce.amazonaws.com, awsgateway_compatible: true, is_proxy_integration: true}}]",
    );
    assert_eq!(outcome.policies().named["f"].target.region.as_str(), "eu-west-1", "as its address says");
}

#[test]
fn a_file_without_a_plugin_is_no_file() {
    for (text, said) in [
        ("_format_version: '3.0'\nplugins: [{name: cors}]", "has no Lambda policy"),
        ("", "has no Lambda policy"),
        ("plugins: [", "is not YAML"),
    ] {
        assert!(import(text, &environment).unwrap_err()[0].message.starts_with(said), "{text}");
    }
}
