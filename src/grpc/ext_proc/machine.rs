//! The protocol of external processing as a state machine: a message in, steps out, no I/O.
//!
//! What must never happen is that a stream ends without a word: Envoy would let the call through to its upstream. So
//! every way through here ends in exactly one of
//!
//! - an immediate response, the function's or one that says why there is none;
//! - a response in pieces, the function's, and its end, or the error of the stream that breaks it off: by then Envoy has
//!   begun to answer its client, and lets nothing through;
//! - changes of the request or response, after which Envoy goes on by design;
//! - the word to go on without a function, where the configuration lets such calls pass.
//!
//! A call that breaks the protocol, or comes in a body mode that cannot work, gets an immediate response as well, because
//! an error of the stream would let it through where `failure_mode_allow` is set.

use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::answer;
use crate::{
    error::{Error, Kind},
    event::{self, Head, callout::Changes, exchange::Answered},
    execute::Part,
    grpc::{envoy::pairs, status::status},
    pb::envoy::{
        extensions::filters::http::ext_proc::v3::{ProcessingMode, processing_mode::BodySendMode},
        service::ext_proc::v3::{
            HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, processing_request::Request as Message,
        },
    },
};

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The function answers the client.
    Backend,
    /// The function's result changes the request or the response.
    Callout(Phase),
    /// Envoy goes on without a function.
    Pass,
    /// There is no policy: the client is told.
    Refuse(event::Reply),
}

/// Which half of the call a message is about.
pub(super) use crate::event::callout::Phase;

/// How Envoy sends the bodies, as the first message says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Modes {
    /// Nothing, where an older gateway does not say.
    pub request: Option<BodySendMode>,
    pub response: Option<BodySendMode>,
    /// Pieces come before the headers are answered, and modes cannot be overridden.
    pub early: bool,
}

/// What comes from outside.
#[derive(Debug)]
pub(super) enum Event {
    Message(ProcessingRequest),
    /// The gateway will send nothing more.
    End,
    /// The function has answered, or cannot.
    Outcome(Outcome),
    /// The next of an answer that is streamed.
    Part(Result<Part, Error>),
    /// The function takes longer than gateways wait by default.
    Slow(std::time::Duration),
}

/// How the call of a function ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The client's answer.
    Reply(event::Reply),
    /// The client's answer begins, and its parts follow.
    Head(Head),
    /// What changes.
    Changes(Changes),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) enum Step {
    Send(Box<ProcessingResponse>),
    Execute(Box<Work>),
    /// The client is told of the error with this status, and nothing follows.
    Refuse(u16, Error),
    /// Nothing follows.
    Finish,
    /// What was sent is not whole, and the gateway must not take it for that.
    Break(Status),
}

/// A call of the function.
#[derive(Debug)]
pub(super) struct Work {
    /// The request's headers, pseudo-headers first; empty if the gateway sends only responses.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// In the response phase.
    pub answered: Option<Answered>,
    /// Whether the gateway takes the answer in pieces.
    pub may_stream: bool,
}

#[derive(Debug)]
enum State {
    /// Waits for the headers of the phase that matters.
    Waiting,
    /// Has them, and waits for the body.
    Collecting(Phase, Body),
    /// Waits for the function, to answer this.
    Executing(Phase, Asked),
    /// Sends the answer in pieces.
    Answering,
    Over,
}

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// Whole, in one message.
    Whole,
    /// In one message, if Envoy has heard that it shall: until then it is not known to.
    Overridden(BodySendMode),
    /// In pieces that are answered at the end.
    Pieces,
}

/// Which message waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Headers,
    Body,
    /// All pieces, and perhaps trailers.
    Pieces {
        trailers: bool,
    },
}

/// The state of a stream.
#[derive(Debug)]
pub(super) struct Machine {
    plan: Plan,
    modes: Modes,
    state: State,
    request: Vec<(String, String)>,
    answered: Option<Answered>,
    /// What has come of a body that comes in pieces.
    pieces: BytesMut,
    /// The whole body.
    body: Bytes,
    /// The largest body in bytes.
    most: usize,
}

impl Machine {
    pub(super) fn new(plan: Plan, modes: Modes, most: usize) -> Self {
        let (request, answered) = (Vec::new(), None);
        let (pieces, body) = (BytesMut::new(), Bytes::new());
        Self { plan, modes, state: State::Waiting, request, answered, pieces, body, most }
    }

    /// The request's headers as far as they have come.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.request
    }

    /// Whether a body is waited for.
    pub(super) fn is_collecting(&self) -> bool {
        matches!(self.state, State::Collecting(..))
    }

    /// Whether anything else can come of the stream.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn on(&mut self, event: Event) -> Vec<Step> {
        if self.is_over() {
            return Vec::new();
        }
        if let Plan::Refuse(reply) = &self.plan {
            let reply = reply.clone();
            return self.finish(vec![answer::immediate(reply)]);
        }
        match event {
            Event::Message(message) => match message.request {
                Some(message) => self.on_message(message),
                None => self.refuse(500, "a message of the gateway has nothing that is known"),
            },
            Event::End => self.on_end(),
            Event::Slow(left) => match self.state {
                // No timer runs while pieces are not answered.
                State::Executing(_, Asked::Headers | Asked::Body) => vec![send(answer::patience(left))],
                _ => Vec::new(),
            },
            Event::Outcome(outcome) => self.on_outcome(outcome),
            Event::Part(part) => self.on_part(part),
        }
    }

    fn on_message(&mut self, message: Message) -> Vec<Step> {
        match (&self.plan, &self.state) {
            // The client has begun to read: there is nothing else to be said.
            (_, State::Answering) => Vec::new(),
            (Plan::Pass, _) => self.finish(vec![answer::pass(&message, self.duplex(phase(&message)))]),
            (_, State::Collecting(expected, body)) if *expected == phase(&message) => {
                let (phase, body) = (*expected, *body);
                self.on_rest(phase, body, message)
            }
            (plan, State::Waiting) => {
                let (wanted, phase) =
                    (if let Plan::Callout(wanted) = plan { *wanted } else { Phase::Request }, phase(&message));
                match message {
                    Message::RequestHeaders(headers) if wanted == Phase::Request => self.begin(phase, headers),
                    Message::ResponseHeaders(headers) if wanted == Phase::Response => self.begin(phase, headers),
                    // What comes before the response goes on as it is.
                    message if phase == Phase::Request && wanted == Phase::Response => {
                        let passed = answer::pass(&message, self.duplex(phase));
                        if let Message::RequestHeaders(headers) = message {
                            self.request = pairs(headers.headers);
                        }
                        vec![send(passed)]
                    }
                    _ => self.out_of_order(),
                }
            }
            _ => self.out_of_order(),
        }
    }

    /// The headers are there.
    fn begin(&mut self, phase: Phase, message: HttpHeaders) -> Vec<Step> {
        let HttpHeaders { headers, end_of_stream } = message;
        let headers = pairs(headers);
        match phase {
            Phase::Request => self.request = headers,
            Phase::Response => {
                let status = headers.iter().find(|(name, _)| name == ":status");
                let status = status.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
                self.answered = Some(Answered { status, headers, body: Bytes::new() });
            }
        }
        if end_of_stream {
            return self.execute(phase, Asked::Headers);
        }
        let mode = match phase {
            Phase::Request => self.modes.request,
            Phase::Response => self.modes.response,
        };
        match mode {
            Some(BodySendMode::None) => self.execute(phase, Asked::Headers),
            Some(BodySendMode::Buffered) => {
                self.state = State::Collecting(phase, Body::Whole);
                vec![send(answer::go_on(phase, None))]
            }
            Some(BodySendMode::FullDuplexStreamed) => {
                self.state = State::Collecting(phase, Body::Pieces);
                Vec::new()
            }
            Some(BodySendMode::Grpc) => self.refuse(500, UNFIT),
            Some(BodySendMode::Streamed | BodySendMode::BufferedPartial) if self.modes.early => self.refuse(500, UNFIT),
            mode => {
                self.state = State::Collecting(phase, Body::Overridden(mode.unwrap_or(BodySendMode::Streamed)));
                vec![send(answer::go_on(phase, Some(self.buffered(phase))))]
            }
        }
    }

    /// The mode in which this phase's body comes whole, and of the rest only what is needed.
    fn buffered(&self, phase: Phase) -> ProcessingMode {
        use crate::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::HeaderSendMode::{Send, Skip};
        let (mut mode, buffered) = (ProcessingMode::default(), BodySendMode::Buffered.into());
        match phase {
            Phase::Request => {
                mode.request_body_mode = buffered;
                mode.response_header_mode = Skip.into();
            }
            Phase::Response => {
                mode.response_body_mode = buffered;
                mode.response_header_mode = Send.into();
                mode.request_body_mode = self.modes.request.unwrap_or_default().into();
            }
        }
        mode
    }

    /// Something of the phase that is being collected.
    fn on_rest(&mut self, phase: Phase, body: Body, message: Message) -> Vec<Step> {
        match message {
            Message::RequestBody(piece) | Message::ResponseBody(piece) => self.on_body(phase, body, piece),
            Message::RequestTrailers(_) | Message::ResponseTrailers(_) => match body {
                Body::Pieces => self.execute(phase, Asked::Pieces { trailers: true }),
                // A body that is only trailers: nothing was sent that could still be changed.
                Body::Whole | Body::Overridden(_) if self.plan == Plan::Backend => self.execute(phase, Asked::Headers),
                Body::Whole | Body::Overridden(_) => self.out_of_order(),
            },
            Message::RequestHeaders(_) | Message::ResponseHeaders(_) => self.out_of_order(),
        }
    }

    fn on_body(&mut self, phase: Phase, body: Body, piece: HttpBody) -> Vec<Step> {
        if self.pieces.len() + piece.body.len() > self.most {
            return self.refuse(413, "the body is larger than lambda takes");
        }
        let last = piece.end_of_stream || piece.end_of_stream_without_message;
        if self.pieces.is_empty() && (last || body == Body::Whole) {
            self.body = piece.body;
        } else {
            self.pieces.extend_from_slice(&piece.body);
        }
        match body {
            Body::Whole => self.execute(phase, Asked::Body),
            Body::Pieces if last => self.execute(phase, Asked::Pieces { trailers: false }),
            Body::Pieces => Vec::new(),
            Body::Overridden(_) if last => self.execute(phase, Asked::Body),
            Body::Overridden(BodySendMode::BufferedPartial) => {
                self.refuse(413, "the body is larger than the gateway's buffer")
            }
            Body::Overridden(_) => self.refuse(500, UNFIT),
        }
    }

    fn execute(&mut self, phase: Phase, asked: Asked) -> Vec<Step> {
        self.state = State::Executing(phase, asked);
        if !self.pieces.is_empty() {
            self.body = self.pieces.split().freeze();
        }
        // The body stays here too: pieces that are not changed must be sent back.
        let (headers, body) = (self.request.clone(), self.body.clone());
        let answered = self.answered.take();
        let work = match answered {
            None => Work { headers, body, answered: None, may_stream: self.may_stream() },
            Some(answered) => {
                let answered = Some(Answered { body, ..answered });
                Work { headers, body: Bytes::new(), answered, may_stream: false }
            }
        };
        vec![Step::Execute(Box::new(work))]
    }

    fn on_outcome(&mut self, outcome: Outcome) -> Vec<Step> {
        let State::Executing(phase, asked) = self.state else { return Vec::new() };
        match outcome {
            Outcome::Reply(reply) => self.finish(vec![answer::immediate(reply)]),
            Outcome::Head(head) => {
                self.state = State::Answering;
                vec![send(answer::head(head))]
            }
            Outcome::Changes(changes) => {
                let body = std::mem::take(&mut self.body);
                self.finish(answer::changes(phase, asked, changes, body))
            }
        }
    }

    /// Whether Envoy takes the answer in pieces: in these modes, and in reply to the request's headers.
    fn may_stream(&self) -> bool {
        let modes = [Some(BodySendMode::None), Some(BodySendMode::FullDuplexStreamed)];
        self.plan == Plan::Backend && modes.contains(&self.modes.request)
    }

    fn on_part(&mut self, part: Result<Part, Error>) -> Vec<Step> {
        let State::Answering = self.state else { return Vec::new() };
        match part {
            Ok(Part::Chunk(chunk)) => vec![send(answer::chunk(chunk, false))],
            Ok(Part::End(end)) if end.whole => self.finish(vec![answer::chunk(Bytes::new(), true)]),
            Ok(Part::End(_)) => self.break_off(Status::internal("the function failed after it had begun to answer")),
            Err(error) => self.break_off(status(&error)),
        }
    }

    fn break_off(&mut self, status: Status) -> Vec<Step> {
        self.state = State::Over;
        vec![Step::Break(status)]
    }

    fn on_end(&mut self) -> Vec<Step> {
        match self.state {
            // The answer comes all the same.
            State::Executing(..) | State::Answering | State::Over => Vec::new(),
            // There was no response to be changed.
            State::Waiting if !self.request.is_empty() => {
                self.state = State::Over;
                vec![Step::Finish]
            }
            State::Waiting | State::Collecting(..) => self.refuse(400, "the request ended before its end"),
        }
    }

    fn out_of_order(&mut self) -> Vec<Step> {
        self.refuse(500, "a message of the gateway is out of order")
    }

    fn refuse(&mut self, status: u16, why: &str) -> Vec<Step> {
        self.state = State::Over;
        let kind = if status == 413 { Kind::PayloadTooLarge } else { Kind::InvalidRequest };
        vec![Step::Refuse(status, Error::new(kind, why))]
    }

    fn finish(&mut self, responses: Vec<ProcessingResponse>) -> Vec<Step> {
        self.state = State::Over;
        responses.into_iter().map(send).chain([Step::Finish]).collect()
    }

    fn duplex(&self, phase: Phase) -> bool {
        let mode = match phase {
            Phase::Request => self.modes.request,
            Phase::Response => self.modes.response,
        };
        mode == Some(BodySendMode::FullDuplexStreamed)
    }
}

/// What an operator has to change.
const UNFIT: &str =
    "the gateway sends the body in pieces: set the body mode BUFFERED or FULL_DUPLEX_STREAMED, or allow_mode_override";

fn send(response: ProcessingResponse) -> Step {
    Step::Send(Box::new(response))
}

fn phase(message: &Message) -> Phase {
    match message {
        Message::RequestHeaders(_) | Message::RequestBody(_) | Message::RequestTrailers(_) => Phase::Request,
        Message::ResponseHeaders(_) | Message::ResponseBody(_) | Message::ResponseTrailers(_) => Phase::Response,
    }
}
