//! The answers of external processing, as the wire has them.

use std::time::Duration;

use bytes::Bytes;

use super::machine::{Asked, Phase};
use crate::{
    event::{self, Head, callout::Changes},
    grpc::envoy::{Place, dynamic_metadata, set},
    pb::envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        extensions::filters::http::ext_proc::v3::ProcessingMode,
        service::ext_proc::v3::{
            BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, HttpHeaders,
            ImmediateResponse, ProcessingResponse, StreamedBodyResponse, StreamedImmediateResponse, TrailersResponse,
            body_mutation::Mutation, common_response::ResponseStatus, processing_request::Request as Message,
            processing_response::Response as Answer, streamed_immediate_response::Response as Streamed,
        },
        r#type::v3::HttpStatus,
    },
};

/// The largest piece of a body, as Envoy recommends.
const PIECE: usize = 64 * 1024;

/// The answer to the client, in the place of the upstream's.
pub(super) fn immediate(reply: event::Reply) -> ProcessingResponse {
    let event::Reply { status, mut headers, body } = reply;
    // Envoy counts the body itself.
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    let untyped = !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let mutation = HeaderMutation {
        set_headers: set(headers, Place::Raw),
        // Where there is no type, Envoy would say text/plain.
        remove_headers: untyped.then(|| "content-type".to_owned()).into_iter().collect(),
    };
    respond(Answer::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: u32::from(status) }),
        headers: Some(mutation),
        body,
        details: "lambda-policy".to_owned(),
    }))
}

/// The answer to the client begins, in the place of the upstream's.
pub(super) fn head(head: Head) -> ProcessingResponse {
    let status = (":status".to_owned(), head.status.to_string());
    let headers = [status].into_iter().chain(head.headers);
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")).map(|(name, value)| {
        // Envoy takes names of headers in lower case, as HTTP/2 has them.
        HeaderValue { key: name.to_ascii_lowercase(), value: String::new(), raw_value: value.into_bytes().into() }
    });
    let headers = HttpHeaders { headers: Some(HeaderMap { headers: headers.collect() }), end_of_stream: false };
    streamed_immediate(Streamed::HeadersResponse(headers))
}

/// The next piece of its body.
pub(super) fn chunk(body: Bytes, end_of_stream: bool) -> ProcessingResponse {
    streamed_immediate(Streamed::BodyResponse(StreamedBodyResponse { body, end_of_stream }))
}

fn streamed_immediate(part: Streamed) -> ProcessingResponse {
    respond(Answer::StreamedImmediateResponse(StreamedImmediateResponse { response: Some(part) }))
}

/// The headers go on, perhaps in another mode.
pub(super) fn go_on(phase: Phase, mode: Option<ProcessingMode>) -> ProcessingResponse {
    ProcessingResponse { mode_override: mode, ..respond(headers(phase, CommonResponse::default())) }
}

/// What came goes on as it is.
pub(super) fn pass(message: &Message, duplex: bool) -> ProcessingResponse {
    let body = |piece: &HttpBody| match duplex {
        false => CommonResponse::default(),
        true => streamed(piece.body.clone(), piece.end_of_stream),
    };
    respond(match message {
        Message::RequestHeaders(_) => headers(Phase::Request, CommonResponse::default()),
        Message::ResponseHeaders(_) => headers(Phase::Response, CommonResponse::default()),
        Message::RequestBody(piece) => rest(Phase::Request, body(piece)),
        Message::ResponseBody(piece) => rest(Phase::Response, body(piece)),
        Message::RequestTrailers(_) => trailers(Phase::Request),
        Message::ResponseTrailers(_) => trailers(Phase::Response),
    })
}

/// The function may take this long yet.
pub(super) fn patience(left: Duration) -> ProcessingResponse {
    ProcessingResponse { override_message_timeout: left.try_into().ok(), ..ProcessingResponse::default() }
}

/// The request or response goes on, changed. `body` is what came in pieces.
pub(super) fn changes(phase: Phase, asked: Asked, changes: Changes, body: Bytes) -> Vec<ProcessingResponse> {
    let Changes { headers: mut changed, remove_headers, path, body: other, metadata } = changes;
    if let Some(path) = path.filter(|_| phase == Phase::Request) {
        changed.push((":path".to_owned(), path));
    }
    if let Some(other) = &other {
        // Envoy refuses a body that is not as long as the header says.
        changed.push(("content-length".to_owned(), other.len().to_string()));
    }
    let metadata = dynamic_metadata(metadata.iter().map(|(name, json)| (name, json)));
    let mutation = HeaderMutation { set_headers: set(changed, Place::Raw), remove_headers };
    let mutation = (mutation != HeaderMutation::default()).then_some(mutation);
    // A request that looks otherwise may belong to another route.
    let clear_route_cache = phase == Phase::Request && mutation.is_some();
    let common = CommonResponse { header_mutation: mutation, clear_route_cache, ..CommonResponse::default() };
    let whole = |body| BodyMutation { mutation: Some(Mutation::Body(body)) };
    let mut responses = match asked {
        Asked::Headers => vec![respond(headers(
            phase,
            match other {
                None => common,
                Some(other) => CommonResponse {
                    status: ResponseStatus::ContinueAndReplace.into(),
                    body_mutation: Some(whole(other)),
                    ..common
                },
            },
        ))],
        Asked::Body => vec![respond(rest(phase, CommonResponse { body_mutation: other.map(whole), ..common }))],
        Asked::Pieces { trailers: with_trailers } => {
            let mut responses = vec![respond(headers(phase, common))];
            let mut left = other.unwrap_or(body);
            loop {
                let piece = left.split_to(left.len().min(PIECE));
                let last = left.is_empty();
                responses.push(respond(rest(phase, streamed(piece, last && !with_trailers))));
                if last {
                    break;
                }
            }
            responses.extend(with_trailers.then(|| respond(trailers(phase))));
            responses
        }
    };
    if let Some(first) = responses.first_mut() {
        first.dynamic_metadata = metadata;
    }
    responses
}

fn respond(answer: Answer) -> ProcessingResponse {
    ProcessingResponse { response: Some(answer), ..ProcessingResponse::default() }
}

fn headers(phase: Phase, common: CommonResponse) -> Answer {
    let response = HeadersResponse { response: Some(common) };
    match phase {
        Phase::Request => Answer::RequestHeaders(response),
        Phase::Response => Answer::ResponseHeaders(response),
    }
}

fn rest(phase: Phase, common: CommonResponse) -> Answer {
    let response = BodyResponse { response: Some(common) };
    match phase {
        Phase::Request => Answer::RequestBody(response),
        Phase::Response => Answer::ResponseBody(response),
    }
}

fn trailers(phase: Phase) -> Answer {
    match phase {
        Phase::Request => Answer::RequestTrailers(TrailersResponse::default()),
        Phase::Response => Answer::ResponseTrailers(TrailersResponse::default()),
    }
}

fn streamed(body: Bytes, end_of_stream: bool) -> CommonResponse {
    let piece = StreamedBodyResponse { body, end_of_stream };
    let mutation = BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) };
    CommonResponse { body_mutation: Some(mutation), ..CommonResponse::default() }
}
