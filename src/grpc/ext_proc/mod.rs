//! Envoy's external processing: the function as the backend, or as a callout.
//!
//! One stream is one HTTP call. The protocol is [`machine`]'s; here are the stream, the function's call and the clock.
//! All of it lives in the stream that the gateway reads: when the gateway goes away, so does the call of the function.

mod answer;
mod machine;
mod said;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use bytes::Bytes;
use futures::Stream;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use self::{
    machine::{Event, Machine, Modes, Outcome, Plan, Step, Work},
    said::{Attributes, call, hints},
};
use super::{
    deadline::Deadline,
    envoy::{self, pairs},
    reception::{latest, too_slow},
    status::status,
    unread::{Why, why},
};
use crate::{
    error::Error,
    event,
    execute::{
        self, Choice, Engine, Input, Output, Reply, Streamed,
        answer::{problem, take},
    },
    pb::envoy::service::ext_proc::v3::{
        ProcessingRequest, ProcessingResponse, external_processor_server::ExternalProcessor,
        processing_request::Request as Message,
    },
    policy::{Caller, Invocation, Policy},
    telemetry::access::Line,
    trace::{Context, Reached},
};

const RPC: &str = "ext_proc";
/// Envoy waits 200 ms for an answer unless it is told otherwise; a function that takes longer than this asks for more.
const SLOW: Duration = Duration::from_millis(150);
/// How much longer than the function may take the gateway is asked to wait, so that it hears of the timeout from here.
const MARGIN: Duration = Duration::from_millis(250);

/// The gateway's service over the engine.
#[derive(Debug)]
pub(super) struct Service {
    engine: Arc<Engine>,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (metadata, mut extensions, inbound) = request.into_parts();
        let session = Session {
            engine: Arc::clone(&self.engine),
            caller: Caller::of(&extensions),
            named: envoy::named(&metadata),
            metadata,
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
            began: StdInstant::now(),
            told: extensions.remove(),
            inbound,
            talk: None,
            call: None,
            streamed: None,
            broken: None,
            slow: Box::pin(sleep(SLOW)),
            answers: VecDeque::new(),
            heard_all: false,
            over: false,
        };
        let answers = futures::stream::unfold(Some(session), |session| async {
            let mut session = session?;
            let answer = session.next().await?;
            // Nothing follows an error, whoever asks.
            let rest = answer.is_ok().then_some(session);
            Some((answer, rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// What came of a call, and the rest of an answer that has only begun.
type Called = (Outcome, Option<Streamed>);
/// A call until then.
type Calling = Pin<Box<dyn Future<Output = Called> + Send>>;

/// A stream.
struct Session {
    engine: Arc<Engine>,
    /// The gateway.
    caller: Caller,
    /// The policy that the route's metadata names.
    named: Option<String>,
    /// What else the gateway says before its first message.
    metadata: MetadataMap,
    deadline: Option<Instant>,
    /// When the gateway began.
    began: StdInstant,
    /// The trace that the gateway's metadata tells of.
    told: Option<Context>,
    inbound: Streaming<ProcessingRequest>,
    /// From the first message on.
    talk: Option<Talk>,
    /// The function, until it has answered or begun to, and how far it has come.
    call: Option<(Calling, Reached)>,
    /// What follows of an answer that has begun.
    streamed: Option<Streamed>,
    /// What the stream ends with, if not in order.
    broken: Option<Status>,
    /// When the gateway is asked for patience.
    slow: Pin<Box<Sleep>>,
    answers: VecDeque<ProcessingResponse>,
    /// The gateway will send nothing more.
    heard_all: bool,
    /// Nothing more comes of it than the answers that are left.
    over: bool,
}

/// What the first message has settled.
struct Talk {
    machine: Machine,
    policy: Option<Arc<Policy>>,
    /// What the gateway says beside the headers.
    attributes: Attributes,
}

impl Session {
    /// The next answer; none when the stream ends.
    async fn next(&mut self) -> Option<Result<ProcessingResponse, Status>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some(Ok(answer));
            }
            if self.over {
                return self.broken.take().map(Err);
            }
            let Some(talk) = &mut self.talk else {
                let first = timeout_at(latest(self.deadline), self.inbound.message());
                let Ok(first) = first.await else {
                    self.refuse_unread(&too_slow(self.deadline));
                    continue;
                };
                match first {
                    Ok(Some(first)) if first.observability_mode => {
                        tracing::debug!("a stream in observability mode is left: nobody reads its answers");
                        self.over = true;
                    }
                    Ok(Some(first)) => self.begin(first),
                    Ok(None) => {
                        let error = Error::field("request", "is missing: the stream is empty");
                        self.line().by_status().failed(&error);
                        (self.broken, self.over) = (Some(status(&error)), true);
                    }
                    Err(broken) => self.refuse_broken(&broken)?,
                }
                continue;
            };
            if let Some(streamed) = &mut self.streamed {
                // What the gateway says now is of no account; that it goes away drops all of this.
                let steps = streamed.next().await.map(|part| talk.machine.on(Event::Part(part))).unwrap_or_default();
                self.take(steps);
                continue;
            }
            let event = match &mut self.call {
                None => match self.inbound.message().await {
                    Ok(Some(message)) => Event::Message(message),
                    Ok(None) => Event::End,
                    Err(broken) => {
                        self.refuse_broken(&broken)?;
                        continue;
                    }
                },
                Some((call, _)) => tokio::select! {
                    (outcome, streamed) = call => {
                        self.streamed = streamed;
                        Event::Outcome(outcome)
                    }
                    message = self.inbound.message(), if !self.heard_all => match message {
                        Ok(Some(message)) => Event::Message(message),
                        Ok(None) => Event::End,
                        // The function's answer comes all the same, if somebody is there.
                        Err(broken) => refused(&broken).map(|_| Event::End)?,
                    },
                    () = &mut self.slow, if !self.slow.is_elapsed() => {
                        let timeout = talk.policy.as_ref().map(|policy| policy.timeout.get()).unwrap_or_default();
                        Event::Slow(timeout + MARGIN)
                    }
                },
            };
            self.heard_all |= matches!(event, Event::End);
            if matches!(event, Event::Outcome(_)) {
                self.call = None;
            }
            let steps = talk.machine.on(event);
            self.take(steps);
        }
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(answer) => self.answers.push_back(*answer),
                Step::Execute(work) => self.execute(*work),
                Step::Refuse(status, error) => self.refuse(status, &error),
                Step::Finish => (self.call, self.over) = (None, true),
                Step::Break(status) => (self.broken, self.over) = (Some(status), true),
            }
        }
    }

    /// Ends a stream of which no more can be read. Where nobody is left to be told, there is nothing.
    fn refuse_broken(&mut self, broken: &Status) -> Option<()> {
        self.refuse_unread(refused(broken)?.error());
        Some(())
    }

    fn refuse_unread(&mut self, error: &Error) {
        self.refuse(error.kind().http_status(), error);
    }

    /// Ends what is no call of the function, or not for long: an error of the stream would let it through where the gateway has
    /// `failure_mode_allow`.
    fn refuse(&mut self, status: u16, error: &Error) {
        match (self.call.take(), &self.talk) {
            // Its own line, which is written when it is dropped, tells why.
            (Some((_call, reached)), Some(Talk { policy: Some(policy), .. })) => {
                reached.refuse(status, error.clone().with_about(policy.about()));
            }
            _ => self.line().told(status).failed(error),
        }
        let reply = event::Reply { status, ..problem(error, self.request_id()) };
        self.answers.push_back(answer::immediate(reply));
        self.over = true;
    }

    /// The line of what does not become a call of the function.
    fn line(&mut self) -> Line {
        let talk = self.talk.as_ref();
        let policy = talk.map_or(self.named.as_deref(), |talk| talk.policy.as_ref().map(|policy| policy.name.as_str()));
        let headers = talk.map_or(&[][..], |talk| talk.machine.headers());
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let trace = self.engine.trace(self.told.take(), headers);
        let line = self.engine.line(RPC, policy.unwrap_or(execute::NO_POLICY));
        let line = if talk.is_some() { line } else { self.engine.unread(line) }.of(self.request_id());
        line.by(&self.caller).within(trace).since(self.began)
    }

    fn request_id(&self) -> &str {
        let of_stream = || envoy::given(&self.metadata).unwrap_or_default();
        self.talk.as_ref().map_or_else(of_stream, |talk| &talk.attributes.request_id)
    }

    /// Finds the policy of the call that the first message begins, and what to do for it.
    fn begin(&mut self, first: ProcessingRequest) {
        let attributes = Attributes::read(&first, envoy::given(&self.metadata));
        let hints = hints(self.named.take(), &first, &attributes);
        let (policy, plan) = match envoy::choose(&self.engine.policies(), &self.caller, &hints) {
            Ok(Some(policy)) => {
                let plan = policy.callout.as_ref().map_or(Plan::Backend, |callout| Plan::Callout(callout.phase));
                (Some(policy), plan)
            }
            Ok(None) => (None, Plan::Pass),
            Err(error) => {
                let line = self.engine.line(RPC, hints.named.as_deref().unwrap_or(execute::NO_POLICY));
                let headers = match &first.request {
                    Some(Message::RequestHeaders(message)) => pairs(message.headers.clone()),
                    _ => Vec::new(),
                };
                let told = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let trace = self.engine.trace(self.told.take(), told);
                line.of(&attributes.request_id).by(&self.caller).within(trace).since(self.began).failed(&error);
                (None, Plan::Refuse(problem(&error, &attributes.request_id)))
            }
        };
        let modes = first.protocol_config.map(|protocol| Modes {
            request: Some(protocol.request_body_mode()),
            response: Some(protocol.response_body_mode()),
            early: protocol.send_body_without_waiting_for_header_response,
        });
        let most = Invocation::RequestResponse.max_payload();
        let mut machine = Machine::new(plan, modes.unwrap_or_default(), most);
        let steps = machine.on(Event::Message(first));
        self.talk = Some(Talk { machine, policy, attributes });
        self.take(steps);
    }

    fn execute(&mut self, work: Work) {
        let Some(Talk { policy: Some(policy), attributes, .. }) = &self.talk else { return };
        let (engine, policy, deadline) = (Arc::clone(&self.engine), Arc::clone(policy), self.deadline);
        let caller = self.caller.clone();
        let Work { headers, body, answered, may_stream } = work;
        let call = Box::new(call(headers, body, attributes));
        let told = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let trace = engine.trace(self.told.take(), told);
        // Of an answer to HEAD nobody reads a body.
        let streams = may_stream && policy.stream && call.method != "HEAD";
        let request_id = attributes.request_id.clone();
        self.slow.as_mut().reset(Instant::now() + SLOW);
        let line = engine.line(RPC, policy.name.as_str()).of(&request_id).by(&caller).within(trace).since(self.began);
        let reached = line.reached().clone();
        let calling = async move {
            let input = match &policy.callout {
                Some(_) => Input::Callout(call, answered.map(Box::new)),
                None => Input::Http(call),
            };
            let request = execute::Request::new(caller, Choice::Found(Arc::clone(&policy)), input, deadline);
            let request = request.told_by(&line);
            if streams {
                return stream(&engine, request, line, &request_id).await;
            }
            let outcome = match engine.execute(request).await {
                Ok(reply) => {
                    line.told(reply.http_status()).answered(reply.answered());
                    outcome(reply)
                }
                Err(error) => {
                    line.failed(&error);
                    Outcome::Reply(problem(&error, &request_id))
                }
            };
            (outcome, None)
        };
        self.call = Some((Box::pin(calling), reached));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The caller has gone away. A call of the function says so itself, and the upstream's is none of ours.
        if !self.over && self.talk.as_ref().is_none_or(|talk| talk.machine.is_collecting()) {
            drop(self.line());
        }
    }
}

/// Why no more is read of a stream, if its caller is still there.
fn refused(broken: &Status) -> Option<Why<'_>> {
    why(broken).filter(|why| !why.error().is_broken_off())
}

/// The beginning of a streamed answer, and what follows.
async fn stream(engine: &Engine, request: execute::Request, line: Line, request_id: &str) -> Called {
    let mut streamed = match engine.stream(request, line).await {
        Ok(streamed) => streamed,
        Err(error) => return (Outcome::Reply(problem(&error, request_id)), None),
    };
    match streamed.head.take() {
        Some(head) if head.is_bodiless() => (Outcome::Reply(event::Reply::from_head(head, Bytes::new())), None),
        Some(head) => (Outcome::Head(head), Some(streamed)),
        None => (Outcome::Reply(event::accepted(streamed.status, &streamed.request_id)), None),
    }
}

/// What a reply means for the gateway.
fn outcome(mut reply: Reply) -> Outcome {
    match &mut reply.output {
        Output::Changes(changes) => Outcome::Changes(std::mem::take(changes)),
        Output::None | Output::Payload(_) | Output::Json(_) | Output::Http(_) => Outcome::Reply(take(&mut reply)),
    }
}
