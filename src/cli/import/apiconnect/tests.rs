//! Documents as API Connect writes them, and what comes of them.

#![allow(clippy::unwrap_used)]

use super::{super::testing::*, *};
use crate::policy::{Invocation, credentials::Base};

fn imported(text: &str) -> Outcome {
    Outcome::new(import(text).unwrap_or_else(|faults| panic!("{faults:?}")), "apiconnect")
}

/// An API with these policies in its assembly.
fn api(policies: &str) -> String {
    format!("openapi: 3.0.3\nx-ibm-configuration:\n  assembly:\n    execute:\n{policies}")
}

const ORDERS: &str = r"
swagger: '2.0'
info: {title: Orders, version: 1.0.0, x-ibm-name: orders}
basePath: /orders
paths:
  /:
    post:
      responses: {200: {description: OK}}
      x-lambda: [{lambda: {function_name: not-in-an-assembly}}]
definitions:
  Order: {type: object, properties: {lambda: {type: string}}}
x-ibm-configuration:
  enforced: true
  phase: realized
  properties:
    lambda-region: {value: eu-west-1, description: Where, encoded: false}
    aws-key: {value: '', encoded: false}
    aws-secret: {value: hunter2-property, encoded: false}
    lambda: {value: none, function: none}
  catalogs:
    Sandbox: {properties: {aws-key: AKIASANDBOX}}
  assembly:
    execute:
      - operation-switch:
          version: 2.0.0
          title: operation-switch
          case:
            - operations:
                - {verb: post, path: /}
              execute:
                - lambda:
                    version: 1.3.0
                    title: Place an order
                    description: 'Places it: now'
                    function_name: arn:aws:lambda:eu-west-1:123456789012:function:place-order
                    aws_region: $(lambda-region)
                    qualifier: live
                    aws_access_key_id: AKIACLEARTEXT
                    aws_secret_access_key: hunter2/Clear+Text
          otherwise:
            - switch:
                version: 2.0.0
                case:
                  - condition: $statusCode() = 200
                    execute:
                      - if:
                          condition: 'true'
                          execute:
                            - aws-lambda:
                                title: lambda
                                function: audit
                                region: us-east-1
                                aws_access_key_id: $(aws-key)
                                aws_secret_access_key: $(aws-secret)
                                aws_assume_role_arn: arn:aws:iam::123456789012:role/audit
                                external_id: acme
                                role_session_name: gateway
                  - otherwise:
                      - lambda: {title: place an order, function_name: place-order, aws_region: eu-west-1, aws_assume_role_arn: 'arn:aws:iam::123456789012:role/orders'}
    catch:
      - errors: [ConnectionError]
        execute:
          - lambda: {title: Report, function_name: report, aws_region: eu-west-1, aws_access_key_id: $(aws-key), aws_secret_access_key: $(aws-secret)}
      - default:
          - lambda: {function_name: report-all, aws_region: eu-west-1, aws_access_key_id: $(aws-key), aws_secret_access_key: $(aws-secret)}
    finally:
      - lambda: {function_name: done, aws_region: eu-west-1, aws_access_key_id: $(aws-key), aws_secret_access_key: $(aws-secret), invocationType: event}
";

#[test]
fn every_policy_is_found_wherever_it_stands_and_the_service_takes_it() {
    let outcome = imported(ORDERS);
    assert_eq!(outcome.listed, [""; 0]);
    let policies = outcome.policies();
    let mut names: Vec<_> = policies.named.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["audit", "done", "place-an-order", "place-an-order-2", "report", "report-all"]);

    let placed = &policies.named["place-an-order"];
    assert_eq!((placed.title.as_str(), placed.description.as_str()), ("Place an order", "Places it: now"));
    assert_eq!(placed.target.function.as_str(), "arn:aws:lambda:eu-west-1:123456789012:function:place-order");
    assert_eq!(placed.target.region.as_str(), "eu-west-1");
    assert_eq!(placed.target.qualifier.as_ref().unwrap().as_str(), "live");
    assert_eq!(placed.access.credentials().kind(), "keys");
    let role = policies.named["audit"].access.credentials().role().unwrap();
    assert_eq!(role.external_id.as_ref().unwrap().as_str(), "acme");
    assert_eq!(role.session_name.as_str(), "gateway");
    assert_eq!(policies.named["place-an-order-2"].access.credentials().kind(), "role");
    assert_eq!(policies.named["done"].invocation, Invocation::Event);
}

#[test]
fn no_secret_is_copied_and_each_has_a_variable() {
    let outcome = imported(ORDERS);
    outcome.is_silent_about(&["hunter2", "Clear+Text", "AKIACLEARTEXT", "AKIASANDBOX"]);
    for line in [
        "#   PLACE_AN_ORDER_ACCESS_KEY_ID: the text at line 38",
        "#   PLACE_AN_ORDER_SECRET_ACCESS_KEY: the text at line 39",
        "#   AWS_KEY: the property `aws-key`",
        "      secret_access_key: {env: AWS_SECRET}",
    ] {
        assert!(outcome.file.contains(&format!("{line}\n")), "{line}: {}", outcome.file);
    }
    assert_eq!(outcome.file.matches("#   AWS_SECRET:").count(), 1, "shared by those that share the property");
    let policies = outcome.policies();
    let id = |name: &str| match policies.named[name].access.credentials().base() {
        Base::Keys(keys) => keys.id.as_str().to_owned(),
        Base::Service => String::new(),
    };
    assert_eq!(id("audit"), "AWS_KEY", "each test variable has its own name as its value");
    assert_eq!(id("place-an-order"), "PLACE_AN_ORDER_ACCESS_KEY_ID");
}

#[test]
fn a_policy_of_api_studio_has_its_properties_deeper() {
    let policy = "\
kind: InvokeAWSLambda
apiVersion: api.ibm.com/v1
metadata: {name: Ship It, version: 1, namespace: sample}
spec:
  functionName: ship
  qualifier: v1
  invocationType: request-response
  region: eu-central-1
  awsAuthType: {accessSecret: wJalrXUtnFEMIhunter2}
  tlsConnectionProfile: my-profile
  input: message
  output: shipped
  clientConfig:
    socketTimeout: 1000
    requestTimeout: 1500
    clientExecutionTimeout: 2500
    clientRetryCount: 5
    enableKeepAlive: true
  extensions: {webm-gateway: {spec: {lambdaConfig: {alias: test}}}}
";
    let outcome = imported(policy);
    outcome.is_silent_about(&["hunter2", "my-profile"]);
    let policy = &outcome.policies().named["ship-it"];
    assert_eq!((policy.title.as_str(), policy.timeout.get().as_millis()), ("Ship It", 2500));
    assert_eq!(policy.target.qualifier.as_ref().unwrap().as_str(), "v1");
    let listed = outcome.listed.join("\n");
    for said in [
        "f:10:3: spec.tlsConnectionProfile: is not taken over: https",
        "f:11:3: spec.input: is not taken over",
        "f:12:3: spec.output: is not taken over",
        "f:14:5: spec.clientConfig.socketTimeout: is not taken over",
        "f:15:5: spec.clientConfig.requestTimeout: is not taken over: `clientExecutionTimeout`",
        "f:17:5: spec.clientConfig.clientRetryCount: is not taken over: the service sends again",
        "f:19:3: spec.extensions: is not taken over: the service has no such setting",
    ] {
        assert!(listed.contains(said), "{said}: {listed}");
    }
    assert_eq!(outcome.listed.len(), 7);

    let many = format!(
        "openapi: 3.0.3\n---\n{policy}---\n{policy}",
        policy = "kind: InvokeAWSLambda\nspec: {functionName: f, region: us-east-1, awsAuthType: {accessSecret: s}}\n"
    );
    assert_eq!(imported(&many).policies().named.len(), 2, "and may be a document of its own");
    let item = api(
        "      - InvokeAWSLambda: {functionName: f, region: us-east-1, awsAuthType: {accessSecret: s}, clientConfig: {requestTimeout: 700}}\n",
    );
    assert_eq!(imported(&item).policies().named["f"].timeout.get().as_millis(), 700);
}

#[test]
fn json_is_read_as_well() {
    let text = "{\n\t\"openapi\": \"3.0.0\",\n\t\"x-ibm-configuration\": {\"assembly\": {\"execute\": [\n\t\t{\"lambda\": {\"title\": \"A \\\"b\\\"\", \"function_name\": \"f\", \"aws_region\": \"us-east-1\", \"qualifier\": \"\", \"aws_access_key_id\": \"AKIAHUNTER2\", \"aws_secret_access_key\": \"hunter2\", \"aws_assume_role_arn\": null}}\n\t]}}}";
    let outcome = imported(text);
    assert_eq!(outcome.listed, [""; 0]);
    outcome.is_silent_about(&["hunter2", "AKIAHUNTER2"]);
    assert_eq!(outcome.policies().named["a-b"].title, "A \"b\"");
}

#[test]
fn what_the_service_would_not_take_is_a_comment_and_listed_with_its_place() {
    let keys = "aws_access_key_id: AKIAHUNTER2, aws_secret_access_key: hunter2";
    for (what, properties, said) in [
        ("no function", "aws_region: us-east-1", "function: is missing"),
        ("an open function", "function_name: $(fn), aws_region: us-east-1", "function_name: `$(fn)` has no value"),
        ("a wrong function", "function_name: a b, aws_region: us-east-1", "function_name: is not a function"),
        ("a list", "function_name: [a], aws_region: us-east-1", "function_name: is not a single value"),
        ("no region", "function_name: f", "region: is missing"),
        ("an open region", "function_name: f, aws_region: $(catalog.region)", "aws_region: `$(catalog.region)` has no"),
        ("a wrong region", "function_name: f, aws_region: mars", "aws_region: is not a region"),
        (
            "two regions",
            "function_name: 'arn:aws:lambda:eu-west-1:123456789012:function:f', aws_region: us-east-1",
            "region: is us-east-1, but",
        ),
        (
            "two qualifiers",
            "function_name: 'f:live', aws_region: us-east-1, qualifier: canary",
            "qualifier: is canary, but",
        ),
        (
            "a wrong role",
            "function_name: f, aws_region: us-east-1, aws_assume_role_arn: orders",
            "aws_assume_role_arn: is not a role's",
        ),
        (
            "a wrong type",
            "function_name: f, aws_region: us-east-1, invocationType: later",
            "invocationType: is none of `requestResponse`",
        ),
    ] {
        let outcome = imported(&api(&format!("      - lambda: {{title: T, {properties}, {keys}}}\n")));
        outcome.is_silent_about(&["hunter2", "AKIAHUNTER2"]);
        assert_eq!(outcome.policies().named.len(), 0, "{what}: {}", outcome.file);
        assert_eq!(outcome.listed.len(), 1, "{what}: {:?}", outcome.listed);
        let line = &outcome.listed[0];
        assert!(line.starts_with("f:5:") && line.contains(&format!("execute[0].lambda.{said}")), "{what}: {line}");
        assert!(outcome.file.contains("  # t:\n  #   title: T\n"), "{what}: {}", outcome.file);
        assert!(outcome.file.contains(&format!("lambda.{said}")), "{what}: {}", outcome.file);
    }
    let outcome = imported(&api("      - lambda: {function_name: f, aws_region: us-east-1}\n"));
    assert!(outcome.listed[0].contains("aws_access_key_id: is missing, and so is a role"), "{:?}", outcome.listed);
    assert!(imported(&api("      - lambda:\n")).file.contains("policies: {}\n"));
}

#[test]
fn what_a_policy_can_do_without_is_left_out_and_listed() {
    let keys = "aws_access_key_id: AKIAHUNTER2, aws_secret_access_key: hunter2";
    for (what, property, said) in [
        (
            "an unknown one",
            "secret_colour: hunter2",
            "secret_colour: is not taken over: the service has no such setting",
        ),
        ("a typing error in a secret", "aws_secret_acces_key: hunter2", "aws_secret_acces_key: is not taken over"),
        ("a TLS profile", "tlsClientProfile: hunter2", "tlsClientProfile: is not taken over: https"),
        ("a message", "outputMessage: hunter2", "outputMessage: is not taken over: the gateway"),
        ("retries", "clientConfig: {clientRetryCount: 3}", "clientConfig.clientRetryCount: is not taken over"),
        ("a timeout that is none", "requestTimeout: hunter2", "requestTimeout: is not a number of milliseconds"),
        ("no timeout", "requestTimeout: 0", "requestTimeout: is no limit"),
        ("a timeout above 15 minutes", "clientExecutionTimeout: 9000000", "clientExecutionTimeout: is not a timeout"),
        ("a timeout without a unit", "timeout: 60", "timeout: is not taken over: its unit"),
        ("an external id of nobody", "external_id: hunter2", "lambda: has what belongs to a role, but no role"),
        ("a secret in a text", "description: $(secret), colour: x", "colour: is not taken over"),
        ("a name said twice", "function: hunter2", "function: is not taken over"),
    ] {
        let text = api(&format!("      - lambda: {{function_name: f, aws_region: us-east-1, {keys}, {property}}}\n"));
        let text = format!("{text}  properties: {{secret: {{value: hunter2}}}}\n");
        let outcome = imported(&text);
        outcome.is_silent_about(&["hunter2", "AKIAHUNTER2"]);
        assert_eq!(outcome.policies().named.len(), 1, "{what}");
        assert_eq!(outcome.listed.len(), 1, "{what}: {:?}", outcome.listed);
        assert!(
            outcome.listed[0].starts_with("f:5:") && outcome.listed[0].contains(said),
            "{what}: {:?}",
            outcome.listed
        );
        assert!(outcome.file.contains(said), "{what}: {}", outcome.file);
    }
    let outcome =
        imported(&api("      - lambda: {function_name: f, aws_region: us-east-1, aws_secret_access_key: hunter2}\n"));
    assert!(outcome.listed[0].contains("one half of a key pair"), "{:?}", outcome.listed);
    assert_eq!(outcome.policies().named["f"].access.credentials().kind(), "keys");
}

#[test]
fn a_document_without_a_policy_is_no_document() {
    for (text, said) in [
        (
            "openapi: 3.0.3\nx-ibm-configuration: {assembly: {execute: [{invoke: {target-url: x}}]}}",
            "has no Lambda policy",
        ),
        ("openapi: 3.0.3\npaths: {/: {x: [{lambda: {function: f}}]}}", "has no Lambda policy"),
        ("x-ibm-configuration: {properties: {lambda: {function: f}}}", "has no Lambda policy"),
        ("", "has no Lambda policy"),
        ("a: [", "is not YAML"),
    ] {
        let faults = import(text).unwrap_err();
        assert!(faults[0].message.starts_with(said), "{text}: {faults:?}");
    }
}
