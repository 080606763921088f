//! Policies that calls bring themselves.

use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, LambdaPolicy},
};
use tonic::Code;

use crate::support::{Service, config, lambda, output, request};

fn inline(policy: LambdaPolicy) -> ExecutePolicyRequest {
    ExecutePolicyRequest { lambda: Some(policy), ..request("", "{}") }
}

fn policy(function: &str) -> LambdaPolicy {
    LambdaPolicy {
        function: function.into(),
        aws_access_key_id: Lambda::KEY_ID.into(),
        aws_secret_access_key: Lambda::SECRET.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn they_are_denied_unless_the_configuration_allows_them() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let failed = service.call(inline(policy("echo"))).await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str()), (Code::PermissionDenied, "CALLER_DENIED"));
    assert!(lambda.requests().is_empty());
}

#[tokio::test]
async fn they_bring_their_own_keys_and_may_assume_a_role_with_them() {
    let lambda = lambda().await;
    let service =
        Service::start_with(&config(&lambda, "inline_policies: allow", "  echo: {function: echo}\n"), None).await;
    let response = service
        .call(inline(LambdaPolicy { qualifier: "3".into(), log: "tail".into(), ..policy("context") }))
        .await
        .unwrap();
    assert_eq!(output(&response)["functionVersion"], "3");
    assert!(!response.log.is_empty());
    let role = LambdaPolicy { aws_assume_role_arn: "arn:aws:iam::123456789012:role/r".into(), ..policy("echo") };
    service.call(inline(role)).await.unwrap();
    assert_eq!(lambda.assumed(), 1);

    let without_keys = LambdaPolicy {
        aws_access_key_id: String::new(),
        aws_secret_access_key: String::new(),
        aws_assume_role_arn: "arn:aws:iam::123456789012:role/r".into(),
        ..policy("echo")
    };
    let failed = service.call(inline(without_keys)).await.unwrap_err();
    assert_eq!(failed.reason, "INVALID_REQUEST", "the service's own identity is not for callers");
}

#[tokio::test]
async fn a_thousand_identities_leave_no_trace_but_their_answers() {
    let lambda = lambda().await;
    let service =
        Service::start_with(&config(&lambda, "inline_policies: allow", "  echo: {function: echo}\n"), None).await;
    for n in 0..1000 {
        let id = format!("AKID{n}");
        lambda.set_key(&id, format!("secret {n}").into());
        let call = inline(LambdaPolicy {
            aws_access_key_id: id.clone(),
            aws_secret_access_key: format!("secret {n}"),
            ..policy("echo")
        });
        service.call(call).await.unwrap();
        assert_eq!(lambda.requests().last().unwrap().signed_by.as_deref(), Some(id.as_str()));
    }
    assert_eq!(lambda.connections(), 1, "all clients share the connections");
}
