//! The protocol, message by message, without a stream.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;

use super::machine::{Event, Machine, Modes, Outcome, Phase, Plan, Step, Work};
use crate::{
    error::{Error, Kind},
    event::{self, Head, callout::Changes},
    execute::{self, FunctionError, FunctionErrorKind},
    pb::envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProcessingResponse, body_mutation::Mutation,
            processing_request::Request as Message, processing_response::Response as Answer,
            streamed_immediate_response::Response as Part,
        },
    },
};

const MOST: usize = 100;

fn modes(request: BodySendMode, response: BodySendMode) -> Modes {
    Modes { request: Some(request), response: Some(response), early: false }
}

fn machine(plan: Plan, modes: Modes) -> Machine {
    Machine::new(plan, modes, MOST)
}

fn message(message: Message) -> Event {
    Event::Message(ProcessingRequest { request: Some(message), ..ProcessingRequest::default() })
}

fn header_map(pairs: &[(&str, &str)]) -> Option<HeaderMap> {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    Some(HeaderMap { headers: pairs.iter().map(header).collect() })
}

fn headers(end_of_stream: bool) -> Event {
    let headers = header_map(&[(":method", "POST"), (":path", "/x"), ("a", "b")]);
    message(Message::RequestHeaders(HttpHeaders { headers, end_of_stream }))
}

fn response_headers(end_of_stream: bool) -> Event {
    message(Message::ResponseHeaders(HttpHeaders { headers: header_map(&[(":status", "201")]), end_of_stream }))
}

fn piece(text: &str, end_of_stream: bool) -> HttpBody {
    HttpBody { body: Bytes::copy_from_slice(text.as_bytes()), end_of_stream, ..HttpBody::default() }
}

fn body(text: &str, last: bool) -> Event {
    message(Message::RequestBody(piece(text, last)))
}

fn response_body(text: &str, last: bool) -> Event {
    message(Message::ResponseBody(piece(text, last)))
}

fn trailers() -> Event {
    message(Message::RequestTrailers(HttpTrailers::default()))
}

fn reply() -> Event {
    Event::Outcome(Outcome::Reply(event::Reply { status: 201, headers: Vec::new(), body: Bytes::from_static(b"done") }))
}

fn changed(body: Option<&'static str>) -> Event {
    let changes = Changes {
        headers: vec![("x-a".into(), "1".into())],
        path: Some("/y".into()),
        body: body.map(|text| Bytes::from_static(text.as_bytes())),
        metadata: vec![("tier".into(), "\"gold\"".into())],
        ..Changes::default()
    };
    Event::Outcome(Outcome::Changes(changes))
}

fn begun() -> Event {
    let headers = vec![("content-type".to_owned(), "a/b".to_owned()), ("Content-Length".to_owned(), "9".to_owned())];
    Event::Outcome(Outcome::Head(Head { status: 201, headers }))
}

fn chunk(text: &'static str) -> Event {
    Event::Part(Ok(execute::Part::Chunk(Bytes::from_static(text.as_bytes()))))
}

fn ended(whole: bool) -> Event {
    let kind = FunctionErrorKind::Unhandled;
    let failed = FunctionError { kind, error_type: "E".into(), message: "m".into(), payload: Bytes::new() };
    let error = (!whole).then_some(failed);
    Event::Part(Ok(execute::Part::End(execute::End { error, whole, log: String::new(), timing: Default::default() })))
}

fn broken() -> Event {
    Event::Part(Err(Error::new(Kind::LambdaFailed, "lambda failed")))
}

/// What steps say, a word each.
fn words(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .flat_map(|step| match step {
            Step::Send(response) => vec![said(response)],
            Step::Execute(work) => vec![format!("execute {}", String::from_utf8_lossy(&work.body))],
            Step::Refuse(status, _) => vec![format!("immediate {status}"), "finish".into()],
            Step::Finish => vec!["finish".into()],
            Step::Break(_) => vec!["break".into()],
        })
        .collect()
}

fn said(response: &ProcessingResponse) -> String {
    let mode =
        response.mode_override.map(|mode| format!(" override {}/{}", mode.request_body_mode, mode.response_body_mode));
    let what = match &response.response {
        None => "patience".to_owned(),
        Some(Answer::ImmediateResponse(answer)) => format!("immediate {}", answer.status.unwrap().code),
        Some(Answer::RequestHeaders(answer)) => format!("headers {}", answer.response.as_ref().unwrap().status),
        Some(Answer::ResponseHeaders(answer)) => {
            format!("response-headers {}", answer.response.as_ref().unwrap().status)
        }
        Some(Answer::RequestBody(answer)) => {
            format!("body{}", mutation(answer.response.as_ref().unwrap().body_mutation.as_ref()))
        }
        Some(Answer::ResponseBody(answer)) => {
            format!("response-body{}", mutation(answer.response.as_ref().unwrap().body_mutation.as_ref()))
        }
        Some(Answer::RequestTrailers(_)) => "trailers".to_owned(),
        Some(Answer::ResponseTrailers(_)) => "response-trailers".to_owned(),
        Some(Answer::StreamedImmediateResponse(part)) => match part.response.as_ref().unwrap() {
            Part::HeadersResponse(head) => {
                let values: Vec<_> =
                    head.headers.iter().flat_map(|map| &map.headers).map(|h| &h.raw_value[..]).collect();
                format!("begin {}", String::from_utf8_lossy(&values.join(&b' ')))
            }
            Part::BodyResponse(piece) => {
                format!("+ {}{}", String::from_utf8_lossy(&piece.body), if piece.end_of_stream { "." } else { "" })
            }
            Part::TrailersResponse(_) => "streamed trailers".to_owned(),
        },
    };
    format!("{what}{}", mode.unwrap_or_default())
}

fn mutation(mutation: Option<&crate::pb::envoy::service::ext_proc::v3::BodyMutation>) -> String {
    match mutation.and_then(|mutation| mutation.mutation.as_ref()) {
        None => String::new(),
        Some(Mutation::Body(body)) => format!(" = {}", String::from_utf8_lossy(body)),
        Some(Mutation::ClearBody(_)) => " cleared".into(),
        Some(Mutation::StreamedResponse(piece)) => {
            format!(" + {}{}", String::from_utf8_lossy(&piece.body), if piece.end_of_stream { "." } else { "" })
        }
    }
}

/// Plays events and tells all that was said.
fn play(machine: &mut Machine, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    events.into_iter().flat_map(|event| words(&machine.on(event))).collect()
}

use BodySendMode::{Buffered, BufferedPartial, FullDuplexStreamed, Grpc, None as NoBody, Streamed};

#[test]
fn the_function_is_the_backend_in_every_mode() {
    for (mode, events, expected, why) in [
        (Buffered, vec![headers(true), reply()], "execute |immediate 201|finish", "no body"),
        (NoBody, vec![headers(false), reply()], "execute |immediate 201|finish", "a body that is not sent"),
        (
            Buffered,
            vec![headers(false), body("ab", true), reply()],
            "headers 0|execute ab|immediate 201|finish",
            "a whole body",
        ),
        (
            Buffered,
            vec![headers(false), body("ab", false), reply()],
            "headers 0|execute ab|immediate 201|finish",
            "with trailers behind it",
        ),
        (
            Buffered,
            vec![headers(false), trailers(), reply()],
            "headers 0|execute |immediate 201|finish",
            "nothing but trailers",
        ),
        (
            FullDuplexStreamed,
            vec![headers(false), body("a", false), body("b", true), reply()],
            "execute ab|immediate 201|finish",
            "pieces",
        ),
        (
            FullDuplexStreamed,
            vec![headers(false), body("a", false), trailers(), reply()],
            "execute a|immediate 201|finish",
            "pieces and trailers",
        ),
        (
            Streamed,
            vec![headers(false), body("ab", true), reply()],
            "headers 0 override 2/0|execute ab|immediate 201|finish",
            "overridden",
        ),
        (
            Streamed,
            vec![headers(false), body("a", false)],
            "headers 0 override 2/0|immediate 500|finish",
            "not overridden",
        ),
        (
            BufferedPartial,
            vec![headers(false), body("a", false)],
            "headers 0 override 2/0|immediate 413|finish",
            "truncated",
        ),
        (Grpc, vec![headers(false)], "immediate 500|finish", "a mode that cannot work"),
    ] {
        let said = play(&mut machine(Plan::Backend, modes(mode, NoBody)), events);
        assert_eq!(said.join("|"), expected, "{mode:?}: {why}");
    }
    let early = Modes { early: true, ..modes(Streamed, NoBody) };
    assert_eq!(play(&mut machine(Plan::Backend, early), [headers(false)]).join("|"), "immediate 500|finish");
    let unsaid = play(&mut machine(Plan::Backend, Modes::default()), [headers(false), body("ab", true)]);
    assert_eq!(unsaid.join("|"), "headers 0 override 2/0|execute ab", "an older gateway");
}

#[test]
fn a_callout_changes_the_request_and_lets_it_go_on() {
    let plan = Plan::Callout(Phase::Request);
    for (mode, events, expected, why) in [
        (Buffered, vec![headers(true), changed(None)], "execute |headers 0|finish", "headers only"),
        (
            Buffered,
            vec![headers(true), changed(Some("new"))],
            "execute |headers 1|finish",
            "a body where there was none",
        ),
        (
            NoBody,
            vec![headers(false), changed(Some("new"))],
            "execute |headers 1|finish",
            "in the place of one that was not sent",
        ),
        (
            Buffered,
            vec![headers(false), body("ab", true), changed(None)],
            "headers 0|execute ab|body|finish",
            "the body stays",
        ),
        (
            Buffered,
            vec![headers(false), body("ab", true), changed(Some("new"))],
            "headers 0|execute ab|body = new|finish",
            "another body",
        ),
        (
            FullDuplexStreamed,
            vec![headers(false), body("a", false), body("b", true), changed(None)],
            "execute ab|headers 0|body + ab.|finish",
            "pieces go back",
        ),
        (
            FullDuplexStreamed,
            vec![headers(false), body("ab", true), changed(Some("new"))],
            "execute ab|headers 0|body + new.|finish",
            "or others",
        ),
        (
            FullDuplexStreamed,
            vec![headers(false), body("ab", false), trailers(), changed(None)],
            "execute ab|headers 0|body + ab|trailers|finish",
            "trailers end it",
        ),
        (
            Buffered,
            vec![headers(false), body("ab", true), reply()],
            "headers 0|execute ab|immediate 201|finish",
            "a function that fails answers",
        ),
    ] {
        let said = play(&mut machine(plan.clone(), modes(mode, Buffered)), events);
        assert_eq!(said.join("|"), expected, "{mode:?}: {why}");
    }
}

#[test]
fn a_callout_in_the_response_phase_lets_the_request_go_on_first() {
    let plan = Plan::Callout(Phase::Response);
    for (request, response, events, expected, why) in [
        (
            NoBody,
            NoBody,
            vec![headers(false), response_headers(false), changed(None)],
            "headers 0|execute |response-headers 0|finish",
            "headers",
        ),
        (
            Buffered,
            Buffered,
            vec![
                headers(false),
                body("ab", true),
                response_headers(false),
                response_body("cd", true),
                changed(Some("new")),
            ],
            "headers 0|body|response-headers 0|execute |response-body = new|finish",
            "bodies",
        ),
        (
            FullDuplexStreamed,
            FullDuplexStreamed,
            vec![headers(false), body("ab", true), response_headers(false), response_body("cd", true), changed(None)],
            "headers 0|body + ab.|execute |response-headers 0|response-body + cd.|finish",
            "pieces",
        ),
        (
            NoBody,
            NoBody,
            vec![response_headers(true), changed(None)],
            "execute |response-headers 0|finish",
            "only responses are sent",
        ),
        (NoBody, NoBody, vec![headers(true), Event::End], "headers 0|finish", "the upstream never answered"),
        (NoBody, NoBody, vec![response_body("a", true)], "immediate 500|finish", "a body before its headers"),
    ] {
        let said = play(&mut machine(plan.clone(), modes(request, response)), events);
        assert_eq!(said.join("|"), expected, "{request:?}/{response:?}: {why}");
    }
    let mut machine = machine(plan, modes(NoBody, Buffered));
    play(&mut machine, [headers(true), response_headers(false)]);
    let steps = machine.on(response_body("cd", true));
    let [Step::Execute(work)] = steps.as_slice() else { panic!("{steps:?}") };
    let Work { headers, answered: Some(answered), .. } = &**work else { panic!("{work:?}") };
    assert_eq!((answered.status, &answered.body[..]), (201, &b"cd"[..]));
    assert!(headers.contains(&("a".to_owned(), "b".to_owned())), "the request is known");
}

#[test]
fn who_has_no_policy_is_told_or_goes_on() {
    let refusal = event::problem(404, "POLICY_NOT_FOUND", "x", "r-1", None);
    let said = play(&mut machine(Plan::Refuse(refusal), modes(Buffered, NoBody)), [headers(false)]);
    assert_eq!(said.join("|"), "immediate 404|finish");
    let unknown = Event::Message(ProcessingRequest::default());
    let said =
        play(&mut machine(Plan::Refuse(event::problem(404, "x", "x", "r-1", None)), Modes::default()), [unknown]);
    assert_eq!(said.join("|"), "immediate 404|finish", "whatever comes, that is the reason");
    let said = play(&mut machine(Plan::Pass, modes(Buffered, NoBody)), [headers(false), body("x", true)]);
    assert_eq!(said.join("|"), "headers 0|finish");
}

#[test]
fn whatever_is_out_of_order_is_answered() {
    for (events, why) in [
        (vec![body("a", true)], "a body first"),
        (vec![trailers()], "trailers first"),
        (vec![response_headers(true)], "a response first"),
        (vec![headers(false), headers(false)], "headers twice"),
        (vec![headers(false), response_headers(true)], "a response before the body"),
        (vec![headers(true), body("a", true)], "a body behind the end"),
        (vec![headers(false), Event::Message(ProcessingRequest::default())], "nothing that is known"),
        (vec![headers(false), Event::End], "an end before the end"),
        (vec![headers(false), body(&"x".repeat(MOST + 1), true)], "too large"),
    ] {
        let said = play(&mut machine(Plan::Backend, modes(Buffered, NoBody)), events);
        assert!(said[said.len() - 2].starts_with("immediate ") && said[said.len() - 1] == "finish", "{why}: {said:?}");
    }
}

#[test]
fn a_half_closed_stream_is_still_answered() {
    let said = play(&mut machine(Plan::Backend, modes(Buffered, NoBody)), [headers(true), Event::End, reply()]);
    assert_eq!(said.join("|"), "execute |immediate 201|finish");
}

#[test]
fn an_answer_in_pieces_is_whole_or_broken_off() {
    let pieces = || vec![headers(true), begun(), chunk("ab")];
    for (last, expected, why) in [
        (ended(true), "+ .|finish", "the function ended"),
        (ended(false), "break", "it failed on its way"),
        (broken(), "break", "the answer broke off"),
    ] {
        let mut events = pieces();
        events.extend([headers(false), Event::End, last, chunk("more")]);
        let said = play(&mut machine(Plan::Backend, modes(NoBody, NoBody)), events);
        assert_eq!(said.join("|"), format!("execute |begin 201 a/b|+ ab|{expected}"), "{why}");
    }
    for (mode, streams) in
        [(NoBody, true), (FullDuplexStreamed, true), (Buffered, false), (Streamed, false), (BufferedPartial, false)]
    {
        let steps = machine(Plan::Backend, modes(mode, NoBody)).on(headers(true));
        let [Step::Execute(work)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(work.may_stream, streams, "{mode:?}");
    }
    let steps = machine(Plan::Callout(Phase::Request), modes(NoBody, NoBody)).on(headers(true));
    assert!(
        matches!(steps.as_slice(), [Step::Execute(work)] if !work.may_stream),
        "a callout's output is needed whole"
    );
}

#[test]
fn patience_is_asked_for_where_somebody_waits() {
    let slow = || Event::Slow(std::time::Duration::from_secs(3));
    let said = play(&mut machine(Plan::Backend, modes(Buffered, NoBody)), [headers(true), slow()]);
    assert_eq!(said.join("|"), "execute |patience");
    let pieces = [headers(false), body("a", true), slow()];
    assert_eq!(play(&mut machine(Plan::Backend, modes(FullDuplexStreamed, NoBody)), pieces).join("|"), "execute a");
}

fn any_event() -> impl Strategy<Value = u8> {
    0..12_u8
}

fn made(kind: u8) -> Event {
    match kind {
        0 => headers(false),
        1 => headers(true),
        2 => body("ab", false),
        3 => body("cd", true),
        4 => trailers(),
        5 => response_headers(false),
        6 => response_headers(true),
        7 => response_body("ef", false),
        8 => response_body("gh", true),
        9 => message(Message::ResponseTrailers(HttpTrailers::default())),
        10 => Event::Message(ProcessingRequest::default()),
        _ => Event::Slow(std::time::Duration::from_secs(1)),
    }
}

proptest! {
    /// Any messages in any order, the function's answer at any time, and then the end: the stream is over, it ended with
    /// one finish, and what came right before that was the answer.
    #[test]
    fn every_stream_ends_with_exactly_one_answer(
        plan in 0..4_u8,
        request in 0..6_i32,
        response in 0..6_i32,
        early: bool,
        kinds in proptest::collection::vec(any_event(), 1..8),
        answers in proptest::collection::vec(any::<bool>(), 8),
        succeeds: bool,
        streamed in prop::option::of(any::<bool>()),
    ) {
        let plan = match plan {
            0 => Plan::Backend,
            1 => Plan::Callout(Phase::Request),
            2 => Plan::Callout(Phase::Response),
            _ => Plan::Refuse(event::problem(404, "POLICY_NOT_FOUND", "x", "r-1", None)),
        };
        let is_backend = plan == Plan::Backend;
        let is_response = plan == Plan::Callout(Phase::Response);
        let modes = Modes { request: BodySendMode::try_from(request).ok(), response: BodySendMode::try_from(response).ok(), early };
        let mut machine = machine(plan, modes);
        let mut steps = Vec::new();
        let outcome = |may_stream: bool| match streamed {
            Some(true) if may_stream => vec![begun(), chunk("ab"), ended(true)],
            Some(false) if may_stream => vec![begun(), chunk("ab"), broken()],
            _ if succeeds && !is_backend => vec![changed(None)],
            _ => vec![reply()],
        };
        let mut may_stream = false;
        let mut running = false;
        for (kind, answer) in kinds.into_iter().zip(answers) {
            let new = machine.on(made(kind));
            for step in &new {
                if let Step::Execute(work) = step {
                    (running, may_stream) = (true, work.may_stream);
                }
            }
            steps.extend(new);
            if running && answer {
                running = false;
                steps.extend(outcome(may_stream).into_iter().flat_map(|event| machine.on(event)));
            }
        }
        steps.extend(machine.on(Event::End));
        if steps.iter().any(|step| matches!(step, Step::Execute(_))) {
            steps.extend(outcome(may_stream).into_iter().flat_map(|event| machine.on(event)));
        }
        prop_assert!(machine.is_over());
        let said = words(&steps);
        let last = |word: &&String| *word == "finish" || *word == "break";
        prop_assert_eq!(said.iter().filter(last).count(), 1, "{:?}", said);
        prop_assert!(said.last().iter().all(last));
        let begun = said.iter().any(|word| word.starts_with("begin"));
        prop_assert!(begun || !said.contains(&"break".to_owned()), "an error before an answer lets the call through");
        prop_assert!(said.iter().filter(|word| word.starts_with("execute")).count() <= 1, "{:?}", said);
        let immediate = said.iter().filter(|word| word.starts_with("immediate")).count();
        let immediate = immediate + usize::from(begun);
        prop_assert!(immediate <= 1, "{:?}", said);
        // A backend's client is always answered; a callout's stream may end because there is no response to change.
        prop_assert!(immediate == 1 || !is_backend, "{:?}", said);
        prop_assert!(immediate == 1 || is_response || said.iter().any(|word| word.starts_with("execute")), "{:?}", said);
        prop_assert!(machine.on(headers(true)).is_empty(), "nothing follows");
    }
}
