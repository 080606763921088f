//! `lambda-policy check --aws`: what AWS lets the policies of a file do.

use lambda_policy::local::{Function, Lambda, Options, Role};

use crate::{
    binary::run,
    support::{Directory, config, lambda_with},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/orders";

fn keys(id: &str, secret: &str, rest: &str) -> String {
    format!("{{access_key_id: {id}, secret_access_key: {secret}{rest}}}")
}

fn assume(role: &str, external_id: &str) -> String {
    let external_id = if external_id.is_empty() { String::new() } else { format!(", external_id: {external_id}") };
    keys(Lambda::KEY_ID, Lambda::SECRET, &format!(", assume_role: {{role_arn: '{role}'{external_id}}}"))
}

async fn check(text: &str) -> (i32, Vec<String>) {
    let directory = Directory::new();
    let file = directory.write("f.yaml", text);
    let output = tokio::task::spawn_blocking(move || run(&["check", "--config", file.to_str().unwrap(), "--aws"]))
        .await
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for secret in [Lambda::SECRET, "not-the-secret", "external-secret"] {
        assert!(!said.contains(secret), "{said}");
    }
    // The first line is that of the file.
    (output.status.code().unwrap(), said.lines().skip(1).map(|line| line.trim_end().to_owned()).collect())
}

#[tokio::test]
async fn each_policy_has_a_line_that_says_what_is_missing() {
    let mut options = Options {
        roles: vec![Role { arn: ROLE.into(), external_id: Some("external-secret".into()) }],
        ..Options::default()
    };
    options.functions.push(Function {
        qualifiers: vec!["live".into()],
        ..Function::builtin("versions", lambda_policy::local::Builtin::Echo)
    });
    let lambda = lambda_with(options).await;
    lambda.add_fault("greet=deny".parse().unwrap());
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let policies = [
        "a-works: {function: echo, timeout: 1ms, invocation: event}".to_owned(),
        format!("b-role: {{function: echo, credentials: {}}}", assume(ROLE, "external-secret")),
        "c-versions: {function: 'versions:live', qualifiers: [live, canary]}".to_owned(),
        "d-denied: {function: greet}".to_owned(),
        format!("e-denied-role: {{function: greet, credentials: {}}}", assume(ROLE, "external-secret")),
        "f-no-function: {function: nobody}".to_owned(),
        format!("g-no-role: {{function: echo, credentials: {}}}", assume("arn:aws:iam::123456789012:role/other", "")),
        format!("h-other-external-id: {{function: echo, credentials: {}}}", assume(ROLE, "beta")),
        format!("i-no-key: {{function: echo, credentials: {}}}", keys("AKIDOTHER", Lambda::SECRET, "")),
        format!("j-other-secret: {{function: echo, credentials: {}}}", keys(Lambda::KEY_ID, "not-the-secret", "")),
        format!("k-nobody-there: {{function: echo, endpoint: {{url: 'http://{nobody}'}}}}"),
        format!(
            "l-no-sts: {{function: echo, sts_endpoint: 'http://{nobody}', credentials: {}}}",
            assume(ROLE, "external-secret")
        ),
    ];
    let policies: String = policies.iter().map(|policy| format!("  {policy}\n")).collect();
    let (code, said) = check(&config(&lambda, "", &policies)).await;
    assert_eq!(code, 1);
    let function = "arn:aws:lambda:us-east-1:123456789012:function:greet";
    let refused = "tcp connect error: Connection refused (os error 111)";
    let other = "arn:aws:iam::123456789012:role/other";
    let trust = "to the user of the access key, and name the user of the access key in the trust policy of that role";
    let expected = format!(
        "\
POLICY               FUNCTION         REGION     RESULT
a-works              echo             us-east-1  works
b-role               echo             us-east-1  works
c-versions           versions:live    us-east-1  works
c-versions           versions:canary  us-east-1  not found: us-east-1 has no such function, version or alias: check `function`, `qualifier` and `region`, and whose account the credentials are of
d-denied             greet            us-east-1  denied: allow lambda:InvokeFunction on {function} to the user of the access key
e-denied-role        greet            us-east-1  denied: allow lambda:InvokeFunction on {function} to role {ROLE}
f-no-function        nobody           us-east-1  not found: us-east-1 has no such function, version or alias: check `function`, `qualifier` and `region`, and whose account the credentials are of
g-no-role            echo             us-east-1  denied: allow sts:AssumeRole on {other} {trust}; if it asks for an external id, set `external_id`
h-other-external-id  echo             us-east-1  denied: allow sts:AssumeRole on {ROLE} {trust}; `external_id` must be the one that it asks for
i-no-key             echo             us-east-1  rejected: aws does not know the access key: it is deleted, inactive, or of another partition
j-other-secret       echo             us-east-1  rejected: the secret access key is not the one of the access key id
k-nobody-there       echo             us-east-1  unreachable: client error (Connect): {refused}: check the network, DNS, and the VPC endpoint and its security group
l-no-sts             echo             us-east-1  no credentials: sts cannot be asked for {ROLE}: dispatch failure: io error: client error (Connect): {refused}: check the network and `sts_endpoint`
3 of 13 work"
    );
    assert_eq!(said.join("\n"), expected);
    for function in ["echo", "greet", "versions"] {
        assert_eq!(lambda.runs(function), 0, "nothing runs");
    }
}

#[tokio::test]
async fn a_file_whose_policies_all_work_is_told_by_the_exit_code() {
    let lambda = lambda_with(Options::default()).await;
    let policies =
        format!("  echo: {{function: echo}}\n  role: {{function: greet, credentials: {}}}\n", assume(ROLE, ""));
    let text = config(&lambda, "", &policies);
    let (code, said) = check(&text).await;
    assert_eq!((code, said.last().unwrap().as_str()), (0, "2 of 2 work"));

    lambda.set_sts_down(true);
    let (code, said) = check(&text).await;
    assert_eq!((code, said[1].contains("works")), (1, true), "{said:?}");
    assert!(said[2].ends_with("no credentials: sts fails at the moment: ServiceUnavailable: try again"), "{said:?}");

    lambda.set_sts_down(false);
    lambda.add_fault("*=throttle:1".parse().unwrap());
    let (code, said) = check(&text).await;
    assert_eq!(code, 1, "{said:?}");
    assert!(said[1].ends_with("unclear: lambda throttles: try again"), "{said:?}");
}
