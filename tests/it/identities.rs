//! Inline policies with an identity each, some thousands unless `LAMBDA_POLICY_IDENTITIES` asks for more: nobody's call is
//! signed with somebody else's keys, and what is kept of them is bounded.

use futures::{StreamExt, stream};
use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, LambdaPolicy},
};

use crate::{
    binary::Process,
    support::{
        Directory, admin,
        churn::{memory, open_files},
        client, config, eventually, execute, lambda, request,
    },
};

/// How many calls there are at once.
const AT_ONCE: usize = 32;
/// How many MiB may be kept: 2,048 clients, the connections, and the buffers of the calls, in a build for tests.
const MOST_KEPT: f64 = 48.0;

/// How many there are.
fn identities() -> usize {
    let asked = std::env::var("LAMBDA_POLICY_IDENTITIES").ok().and_then(|number| number.parse().ok());
    asked.unwrap_or(3000)
}

fn key(number: usize) -> (String, String) {
    (format!("AKIA{number:016}"), format!("secret-of-{number}"))
}

fn call(number: usize, secret_of: usize) -> ExecutePolicyRequest {
    let lambda = LambdaPolicy {
        function: "echo".into(),
        aws_access_key_id: key(number).0,
        aws_secret_access_key: key(secret_of).1,
        ..Default::default()
    };
    ExecutePolicyRequest { lambda: Some(lambda), ..request("", &format!(r#"{{"caller":{number}}}"#)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_them_keep_apart_and_leave_little_behind() {
    let (lambda, directory) = (lambda().await, Directory::new());
    let text = config(&lambda, "inline_policies: allow", "  echo: {function: echo}\n");
    let process =
        Process::serve(&directory.write("f.yaml", &text), &[("LAMBDA_POLICY_LOG", "error,lambda_policy::app=info")]);
    let grpc = eventually("the service", async || process.address("grpc")).await;
    let port = eventually("the admin port", async || process.address("admin")).await;
    let client = client(&grpc).await;
    let execute = |asked| execute(&client, asked);
    execute(call_with_the_usual_keys()).await.unwrap();
    execute(call(0, 1)).await.unwrap_err();
    let series =
        async || admin(&port, "GET", "/metrics", "*/*", "").await.2.lines().filter(|l| !l.starts_with('#')).count();
    let (series_before, memory_before, files_before) = (series().await, memory(process.id()), open_files(process.id()));

    let all = identities();
    for number in 0..all {
        let (id, secret) = key(number);
        lambda.set_key(&id, secret.into());
    }
    let answered = stream::iter(0..all)
        .map(|number| async move {
            // One in a hundred has somebody else's secret.
            let stolen = number % 100 == 99;
            let answer = execute(call(number, if stolen { number - 1 } else { number })).await;
            match (stolen, answer) {
                (true, Err(refused)) => assert_eq!(refused.reason, "CREDENTIALS_REJECTED", "{number}"),
                (false, Ok(_)) => return 1u64,
                (_, other) => panic!("{number}: {other:?}"),
            }
            0
        })
        .buffer_unordered(AT_ONCE)
        .fold(0, async |sum, one| sum + one)
        .await;

    assert_eq!(answered, u64::try_from(all - all / 100).unwrap());
    assert_eq!(lambda.runs("echo"), answered + 1, "each ran once");
    // The last of them are kept.
    let recorded = lambda.requests();
    let theirs = recorded.iter().filter_map(|recorded| Some((recorded.signed_by.as_deref()?, &recorded.body)));
    for (id, event) in theirs.filter(|(id, _)| *id != Lambda::KEY_ID) {
        let event: serde_json::Value = serde_json::from_slice(event).unwrap();
        assert_eq!(event["caller"], id.trim_start_matches("AKIA").parse::<u64>().unwrap(), "whose call it is");
    }
    let grown = (memory(process.id()) - memory_before) / 1024.0;
    assert!(grown < MOST_KEPT, "memory grew by {grown:.1} MiB");
    // A connection is not somebody's: they are shared, as the signature is all that differs.
    let files = open_files(process.id());
    assert!(files <= files_before + AT_ONCE + 2, "{files_before} to {files} files");
    // A status or an outcome that was not there before may be; nothing is by identity.
    let series_after = series().await;
    assert!(series_after <= series_before + 40, "{series_before} to {series_after} series");
}

fn call_with_the_usual_keys() -> ExecutePolicyRequest {
    let lambda = LambdaPolicy {
        function: "echo".into(),
        aws_access_key_id: Lambda::KEY_ID.into(),
        aws_secret_access_key: Lambda::SECRET.into(),
        ..Default::default()
    };
    ExecutePolicyRequest { lambda: Some(lambda), ..request("", "{}") }
}
