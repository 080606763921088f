//! Another gateway's configuration, from its file to a service that would take it.

use std::process::{Command, Output};

use crate::{
    binary::{PROGRAM, run},
    support::Directory,
};

const API: &str = "\
openapi: 3.0.3
info: {title: Orders, version: 1.0.0}
x-ibm-configuration:
  properties: {secret: {value: hunter2-property}}
  assembly:
    execute:
      - switch:
          case:
            - condition: $httpVerb() = 'POST'
              execute:
                - lambda:
                    title: Place an order
                    function_name: place-order
                    aws_region: eu-west-1
                    aws_access_key_id: AKIACLEARTEXT
                    aws_secret_access_key: hunter2-text
            - otherwise:
                - aws-lambda: {title: Audit, function: audit, aws_region: eu-west-1, aws_access_key_id: $(key), aws_secret_access_key: $(secret)}
";

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn import(directory: &Directory, importer: &str, text: &str) -> (i32, String, String) {
    let file = directory.write("document", text);
    texts(&run(&["import", importer, file.to_str().unwrap()]))
}

#[test]
fn an_api_becomes_a_file_without_a_secret_that_the_check_takes() {
    let directory = Directory::new();
    let (code, file, said) = import(&directory, "apiconnect", API);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(!file.contains("hunter2") && !file.contains("AKIACLEARTEXT"), "{file}");

    let config = directory.write("policies.yaml", &file);
    let mut check = Command::new(PROGRAM);
    check.args(["check", "--config"]).arg(&config);
    let (code, _, said) = texts(&check.output().unwrap());
    assert_eq!(code, 2, "without the variables");
    assert!(said.contains("the environment variable KEY is not set"), "{said}");
    for variable in ["PLACE_AN_ORDER_ACCESS_KEY_ID", "PLACE_AN_ORDER_SECRET_ACCESS_KEY", "KEY", "SECRET"] {
        assert!(file.contains(&format!("{{env: {variable}}}")), "{variable}: {file}");
        check.env(variable, "AKIDEXAMPLE");
    }
    let (code, said, _) = texts(&check.output().unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("2 policies, no fault"), "{said}");
}

#[test]
fn what_is_lost_is_told_on_standard_error_and_by_the_exit_code() {
    let directory = Directory::new();
    let text = API.replace("title: Audit", "title: Audit, tlsClientProfile: hunter2");
    let (code, file, said) = import(&directory, "apiconnect", &text);
    assert_eq!(code, 1);
    assert_eq!(said.lines().count(), 1, "{said}");
    let key = "x-ibm-configuration.assembly.execute[0].switch.case[1].otherwise[0].aws-lambda.tlsClientProfile";
    assert!(said.contains(&format!("document:18:46: {key}: is not taken over")), "{said}");
    assert!(file.contains(key) && !file.contains("hunter2") && !said.contains("hunter2"), "{file}");
}

#[test]
fn a_deck_file_becomes_policies_and_routes() {
    let directory = Directory::new();
    let text = "\
_format_version: '3.0'
services:
- name: orders
  routes:
  - {name: orders, hosts: [api.example.com], paths: [/orders]}
  plugins:
  - name: aws-lambda
    config: {aws_key: AKIACLEARTEXT, aws_secret: hunter2, aws_region: us-east-1, function_name: orders,
             awsgateway_compatible: true, is_proxy_integration: true}
";
    let (code, file, said) = import(&directory, "kong", text);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(!file.contains("hunter2") && !file.contains("AKIACLEARTEXT"), "{file}");
    assert!(file.ends_with("routes:\n  - host: api.example.com\n    path: /orders/*\n    policy: orders\n"), "{file}");
}

#[test]
fn what_is_no_document_of_the_gateway_is_an_error() {
    let directory = Directory::new();
    for (importer, text, said) in [
        ("apiconnect", "openapi: 3.0.3", "document: has no Lambda policy in it"),
        ("kong", API, "document: has no Lambda policy in it"),
        ("kong", "plugins: [", "document:2:1: is not YAML"),
    ] {
        let (code, file, error) = import(&directory, importer, text);
        assert_eq!((code, file.as_str()), (2, ""), "{text}");
        assert!(error.contains(said), "{error}");
    }
    let (code, _, error) = texts(&run(&["import", "kong", "not/there"]));
    assert_eq!(code, 2);
    assert!(error.starts_with("not/there: cannot be read: No such file"), "{error}");
}
