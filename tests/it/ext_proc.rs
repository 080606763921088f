//! Streams of external processing that Envoy itself does not make on demand: empty, watched, cut, and out of order.

use std::time::Duration;

use bytes::Bytes;
use lambda_policy::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
        external_processor_client::ExternalProcessorClient, processing_request::Request as Message,
        processing_response::Response as Answer,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::support::{Service, channel, config, eventually, lambda};

const POLICIES: &str =
    "  greet: {function: greet, event: http-api}\n  slow: {function: slow, event: http-api, timeout: 20s}\n";

/// A stream from the gateway's end.
struct Stream {
    send: Option<mpsc::UnboundedSender<ProcessingRequest>>,
    answers: Streaming<ProcessingResponse>,
}

impl Stream {
    async fn open(service: &Service, policy: &str) -> Self {
        let mut client = ExternalProcessorClient::new(channel(&service.address).await);
        let (send, messages) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(messages));
        request.metadata_mut().insert("x-lambda-policy", policy.parse().unwrap());
        Self { send: Some(send), answers: client.process(request).await.unwrap().into_inner() }
    }

    fn send(&self, message: Message) {
        let protocol = ProtocolConfiguration {
            request_body_mode: BodySendMode::Buffered.into(),
            ..ProtocolConfiguration::default()
        };
        let request = ProcessingRequest {
            request: Some(message),
            protocol_config: Some(protocol),
            ..ProcessingRequest::default()
        };
        self.send.as_ref().unwrap().send(request).unwrap();
    }

    /// The gateway's half ends.
    fn close(&mut self) {
        self.send = None;
    }

    async fn next(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        self.answers.message().await
    }

    /// The status of the one answer that the stream ends with; to be asked for patience is none.
    async fn only_answer(&mut self) -> u32 {
        let mut answer = self.next().await.unwrap().unwrap();
        if answer.override_message_timeout.is_some() {
            answer = self.next().await.unwrap().unwrap();
        }
        let Some(Answer::ImmediateResponse(answer)) = answer.response else { panic!("an immediate response") };
        assert!(self.next().await.unwrap().is_none(), "nothing follows");
        answer.status.unwrap().code
    }
}

fn headers(end_of_stream: bool) -> Message {
    let header = |(key, value): (&str, &str)| HeaderValue {
        key: key.to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    let headers = [(":method", "GET"), (":path", "/?name=Ada"), (":authority", "api.test")].map(header).into();
    Message::RequestHeaders(HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream })
}

#[tokio::test]
async fn a_stream_is_answered_also_when_the_gateway_has_said_all() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let mut stream = Stream::open(&service, "greet").await;
    stream.send(headers(true));
    stream.close();
    assert_eq!(stream.only_answer().await, 200);
}

#[tokio::test]
async fn a_stream_that_is_cut_short_or_out_of_order_has_one_answer() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let mut cut = Stream::open(&service, "greet").await;
    cut.send(headers(false));
    assert!(matches!(cut.next().await.unwrap().unwrap().response, Some(Answer::RequestHeaders(_))));
    cut.close();
    assert_eq!(cut.only_answer().await, 400);

    let mut twisted = Stream::open(&service, "greet").await;
    twisted.send(Message::RequestBody(HttpBody { end_of_stream: true, ..HttpBody::default() }));
    assert_eq!(twisted.only_answer().await, 500);

    let mut nobody = Stream::open(&service, "nobody").await;
    nobody.send(headers(true));
    assert_eq!(nobody.only_answer().await, 404);
    assert_eq!(lambda.runs("greet"), 0);
}

#[tokio::test]
async fn an_empty_stream_is_an_error_and_a_watched_one_is_left() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let mut empty = Stream::open(&service, "greet").await;
    empty.close();
    assert_eq!(empty.next().await.unwrap_err().code(), Code::InvalidArgument);

    let mut watched = Stream::open(&service, "greet").await;
    let request =
        ProcessingRequest { request: Some(headers(true)), observability_mode: true, ..ProcessingRequest::default() };
    watched.send.as_ref().unwrap().send(request).unwrap();
    assert!(watched.next().await.unwrap().is_none(), "nobody would read an answer");
    assert_eq!(lambda.runs("greet"), 0);
}

#[tokio::test]
async fn a_stream_that_is_given_up_gives_up_its_call() {
    let lambda = lambda().await;
    let service = Service::start_with(&config(&lambda, "max_in_flight: 1", POLICIES), None).await;
    lambda.add_fault("slow=slow:15s".parse().unwrap());
    let mut stream = Stream::open(&service, "slow").await;
    stream.send(headers(true));
    // Patience is asked for while the function runs.
    assert!(stream.next().await.unwrap().unwrap().override_message_timeout.is_some());
    let other = async || {
        let mut other = Stream::open(&service, "greet").await;
        other.send(headers(true));
        other.only_answer().await
    };
    assert_eq!(other().await, 503, "one call may be in flight, and it is");
    drop(stream);
    // Its place is free long before the function would have answered.
    let ended = eventually("the call has ended", async || (other().await == 200).then_some(()));
    assert!(tokio::time::timeout(Duration::from_secs(5), ended).await.is_ok());
}
