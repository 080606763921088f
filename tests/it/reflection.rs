//! Health and reflection, as grpcurl and probes ask for them.

use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Service, channel, lambda};

#[tokio::test]
async fn the_services_describe_themselves_in_both_versions() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    macro_rules! services {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let mut client = ServerReflectionClient::new(channel(&service.address).await);
            let ask = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for names in [services!(v1), services!(v1alpha)] {
        for name in [
            "lambdapolicy.v1.PolicyService",
            "grpc.health.v1.Health",
            "coprocess.Dispatcher",
            "apigee.ExternalCalloutService",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
    }
}

#[tokio::test]
async fn health_is_told_for_the_server_and_for_the_service() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let mut client = HealthClient::new(channel(&service.address).await);
    for name in ["", "lambdapolicy.v1.PolicyService"] {
        let answer = client.check(HealthCheckRequest { service: name.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{name}");
    }
}
