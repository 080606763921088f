//! Who signs: keys, roles, and what happens when they change, expire or cannot be had.

use std::time::Duration;

use lambda_policy::local::{Lambda, Options, Role};
use tonic::Code;

use crate::{
    binary::Process,
    support::{Directory, Service, admin, client, config, eventually, execute, lambda, lambda_with, request},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/orders";

fn assuming(role: &str, external_id: &str) -> String {
    format!(
        "{{access_key_id: {}, secret_access_key: {}, assume_role: {{role_arn: '{role}', external_id: {external_id}}}}}",
        Lambda::KEY_ID,
        Lambda::SECRET
    )
}

async fn with_role() -> Lambda {
    let role = Role { arn: ROLE.into(), external_id: Some("acme".into()) };
    lambda_with(Options { roles: vec![role], ..Options::default() }).await
}

#[tokio::test]
async fn a_role_is_assumed_once_for_all_calls_and_policies_that_share_it() {
    let lambda = with_role().await;
    let credentials = assuming(ROLE, "acme");
    let policies = format!(
        "  a: {{function: echo, credentials: {credentials}}}\n  b: {{function: echo, credentials: {credentials}}}\n"
    );
    let service = Service::start(&lambda, &policies).await;
    let calls: Vec<_> = (0..40)
        .map(|n| {
            let client = service.client.clone();
            let policy = if n % 2 == 0 { "a" } else { "b" };
            tokio::spawn(async move { crate::support::execute(&client, request(policy, "{}")).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(lambda.assumed(), 1);
    let invoked = lambda.requests().into_iter().filter(|request| request.target.contains("/functions/"));
    for request in invoked {
        assert!(request.signed_by.unwrap().starts_with("ASIA"));
        assert!(request.headers.contains_key("x-amz-security-token"));
    }
}

#[tokio::test]
async fn the_services_own_identity_says_where_it_was_looked_for() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  own: {function: echo, credentials: default}\n"));
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let (token, agent) =
        (directory.0.join("no-token").display().to_string(), format!("http://{closed}/v1/credentials"));
    let nowhere = directory.0.join("none").display().to_string();
    for (environment, expected) in [
        (
            vec![],
            vec!["Environment: ", "; Profile: ", "; WebIdentityToken: ", "; EcsContainer: ", "; Ec2InstanceMetadata: "],
        ),
        (vec![("AWS_PROFILE", "nobody")], vec!["Profile: ", "nobody"]),
        (
            vec![("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", ROLE)],
            vec!["No such file", "AWS_WEB_IDENTITY_TOKEN_FILE=", &token],
        ),
        (
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.as_str())],
            vec!["AWS_CONTAINER_CREDENTIALS_FULL_URI=", &agent],
        ),
    ] {
        let files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, nowhere.as_str()));
        let environment = [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_REGION", "us-east-1")]
            .into_iter()
            .chain(files)
            .chain(environment);
        let process = Process::serve(&file, &environment.collect::<Vec<_>>());
        let address = eventually("the service", async || process.address("grpc")).await;
        let failed = execute(&client(&address).await, request("own", "{}")).await.unwrap_err();
        assert!(failed.reason.starts_with("CREDENTIALS_"), "{failed:?}");
        let (_, _, status) = admin(&process.address("admin").unwrap(), "GET", "/status", "*/*", "").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let detail = status["own_credentials"]["failure"]["detail"].as_str().unwrap();
        for expected in expected {
            assert!(detail.contains(expected), "{expected}: {detail}");
        }
    }
}

#[tokio::test]
async fn what_aws_refuses_is_told_apart_from_what_cannot_be_had() {
    let lambda = with_role().await;
    let policies = format!(
        "  wrong-secret: {{function: echo, credentials: {{access_key_id: {id}, secret_access_key: wrong}}}}\n  \
         unknown-key: {{function: echo, credentials: {{access_key_id: AKIDUNKNOWN, secret_access_key: wrong}}}}\n  \
         wrong-external-id: {{function: echo, credentials: {wrong}}}\n  role: {{function: echo, credentials: {right}}}\n",
        id = Lambda::KEY_ID,
        wrong = assuming(ROLE, "other"),
        right = assuming(ROLE, "acme"),
    );
    let service = Service::start(&lambda, &policies).await;
    for policy in ["wrong-secret", "unknown-key", "wrong-external-id"] {
        let failed = service.json(policy, "{}").await.unwrap_err();
        assert_eq!(
            (failed.code, failed.reason.as_str()),
            (Code::FailedPrecondition, "CREDENTIALS_REJECTED"),
            "{policy}"
        );
        assert_eq!(failed.ran, "no", "{policy}");
        assert!(!failed.status.message().contains(ROLE), "{policy}: {}", failed.status.message());
    }
    lambda.set_sts_down(true);
    let failed = service.json("role", "{}").await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str()), (Code::Unavailable, "CREDENTIALS_UNAVAILABLE"));
    assert_eq!(lambda.runs("echo"), 0);
}

#[tokio::test]
async fn while_sts_is_down_valid_credentials_keep_serving() {
    let lambda = with_role().await;
    let service =
        Service::start(&lambda, &format!("  role: {{function: echo, credentials: {}}}\n", assuming(ROLE, "acme")))
            .await;
    service.json("role", "{}").await.unwrap();
    lambda.set_sts_down(true);
    for _ in 0..10 {
        service.json("role", "{}").await.unwrap();
    }
    assert_eq!(lambda.assumed(), 1);
}

#[tokio::test]
async fn a_session_that_lambda_calls_expired_is_replaced_within_the_call() {
    let lambda = with_role().await;
    let service =
        Service::start(&lambda, &format!("  role: {{function: echo, credentials: {}}}\n", assuming(ROLE, "acme")))
            .await;
    service.json("role", "{}").await.unwrap();
    lambda.expire_sessions();
    service.json("role", "{}").await.unwrap();
    assert_eq!((lambda.assumed(), lambda.runs("echo")), (2, 2), "refused before it ran, then run once");
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_set_by_awss_within_the_call() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    lambda.set_clock_ahead(Duration::from_secs(3600));
    for _ in 0..3 {
        service.json("echo", "{}").await.unwrap();
    }
    assert_eq!((lambda.runs("echo"), lambda.requests().len()), (3, 4), "refused once, before it ran");
    lambda.set_clock_ahead(Duration::ZERO);
    service.json("echo", "{}").await.unwrap();
}

#[tokio::test]
async fn a_rotated_secret_takes_effect_and_calls_in_flight_end_well() {
    let lambda = lambda().await;
    let directory = Directory::new();
    directory.write("secret", &format!("{}\n", Lambda::SECRET));
    let policies = format!(
        "  slow: {{function: slow, credentials: {{access_key_id: {}, secret_access_key: {{file: secret}}}}}}\n",
        Lambda::KEY_ID
    );
    let text = config(&lambda, "", &policies);
    let file = directory.write("policies.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;
    service.json("slow", r#"{"ms": 0}"#).await.unwrap();

    let client = service.client.clone();
    let before =
        tokio::spawn(async move { crate::support::execute(&client, request("slow", r#"{"ms": 4000}"#)).await });
    eventually("the call in flight", async || (lambda.runs("slow") == 2).then_some(())).await;
    lambda.set_key(Lambda::KEY_ID, "rotated".into());
    let failed = service.json("slow", r#"{"ms": 0}"#).await.unwrap_err();
    assert_eq!(failed.reason, "CREDENTIALS_REJECTED", "the old secret is refused by now");
    directory.write("secret", "rotated\n");
    eventually("the new secret", async || service.json("slow", r#"{"ms": 0}"#).await.ok()).await;
    assert!(before.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_wrong_file_never_replaces_a_good_one() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "", "  echo: {function: echo}\n");
    let file = directory.write("policies.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;
    for wrong in ["policies: [", "policies: {echo: {function: 'a b'}}", ""] {
        directory.write("policies.yaml", if wrong.is_empty() { "policies: {}\nx: 1" } else { wrong });
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(service.json("echo", "{}").await.is_ok(), "{wrong}");
    }
    directory.write("policies.yaml", &config(&lambda, "", "  renamed: {function: echo}\n"));
    eventually("the new policy", async || service.json("renamed", "{}").await.ok()).await;
    assert_eq!(service.json("echo", "{}").await.unwrap_err().reason, "POLICY_NOT_FOUND");
}
