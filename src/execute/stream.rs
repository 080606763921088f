//! Calls whose answer comes in pieces, from the function's first byte on.
//!
//! A task of the call's own reads the answer, one piece ahead of the front: so a front that is read slowly slows the
//! reading from Lambda, and the deadline holds though nobody reads. A front that goes away drops its end of the
//! channel, and with it the call.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};

use super::{
    Clock, Engine, Prepared,
    call::{FunctionError, Input, Output, Reply, Request, Sizes, Timing},
    settle::{self, Form},
};
use crate::{
    admission::Permit,
    error::{Error, Kind},
    event::{self, Head, Opening},
    lambda::{self, Answer, Api, Taken},
    policy::{Deadline, Invocation, Policy},
    telemetry::access::{Answered, Line},
    trace::{self, Reached, Step},
};

/// The largest piece of a body that is handed on, as Envoy recommends; clients of gRPC read 4 MB at the most.
const PIECE: usize = 64 * 1024;

/// An answer that has begun.
#[derive(Debug)]
pub struct Streamed {
    /// 200, 202 or 204.
    pub status: u16,
    /// The version that runs.
    pub version: String,
    /// AWS's id of the request.
    pub request_id: String,
    /// Status and headers, if the input was an HTTP call.
    pub head: Option<Head>,
    rest: Rest,
}

/// What follows: some chunks, then one end.
#[derive(Debug)]
pub enum Part {
    /// At most 64 KiB of the body.
    Chunk(Bytes),
    /// The end, after which nothing comes.
    End(End),
}

/// How a call ended whose answer came in pieces.
#[derive(Debug)]
pub struct End {
    /// The function's own failure.
    pub error: Option<FunctionError>,
    /// Whether the body is whole. A function that failed on its way has not written all of it; where it failed before,
    /// the body is what the front door says of that.
    pub whole: bool,
    /// The end of the log, if asked for.
    pub log: String,
    /// Where the time went.
    pub timing: Timing,
}

#[derive(Debug)]
enum Rest {
    /// All of it is there.
    Whole(Bytes, Option<Box<End>>, #[expect(dead_code, reason = "held until all of it is passed on")] Option<Taken>),
    /// It comes.
    Coming(mpsc::Receiver<Result<Part, Error>>),
}

/// How far a call has come when its head is known.
enum Begun {
    Whole(Box<Reply>),
    Coming(Option<Head>, Bytes, Box<Reading>),
}

impl Begun {
    fn whole(reply: Reply) -> Self {
        Self::Whole(Box::new(reply))
    }
}

/// An answer while it is read.
struct Reading {
    policy: Arc<Policy>,
    stream: lambda::Stream,
    deadline: Deadline,
    clock: Clock,
    permit: Permit,
    /// Where it is noted how far it has come.
    reached: Reached,
}

impl Engine {
    /// Executes one call whose answer comes as the function writes it, and writes its line into the log when it has ended.
    ///
    /// What is not answered by a function that runs now, events and dry runs, and callouts, are executed as ever.
    ///
    /// # Errors
    /// As the contract's table has them, until the answer begins.
    pub async fn stream(&self, request: Request, line: Line) -> Result<Streamed, Error> {
        let policy = match self.find(&request) {
            Ok(policy) => policy,
            Err(error) => {
                line.failed(&error);
                return Err(error);
            }
        };
        match self.begin(&policy, request).await {
            Ok(Begun::Whole(reply)) => {
                line.told(reply.http_status()).answered(reply.answered());
                Ok(Streamed::whole(*reply))
            }
            Ok(Begun::Coming(head, first, reading)) => {
                let line = line.begun(head.as_ref().map(|head| head.status));
                let (version, request_id) = (reading.stream.version.clone(), reading.stream.request_id.clone());
                let (parts, rest) = mpsc::channel(1);
                tokio::spawn(reading.run(first, parts, line));
                Ok(Streamed { status: 200, version, request_id, head, rest: Rest::Coming(rest) })
            }
            Err(error) => {
                let error = error.with_about(policy.about());
                line.failed(&error);
                Err(error)
            }
        }
    }

    async fn begin(&self, policy: &Arc<Policy>, mut request: Request) -> Result<Begun, Error> {
        let input = request.take_input();
        let runs = request.invocation(policy) == Invocation::RequestResponse;
        let api = match input {
            Input::Payload(_) | Input::Json(_) | Input::Http(_) if runs => Api::InvokeWithResponseStream,
            _ => Api::Invoke,
        };
        let Prepared { ready, invoke, form, deadline, clock, trial, permit } =
            self.prepare(policy, input, &request, api).await?;
        if api == Api::Invoke {
            let answer = ready.invoke(&invoke, deadline).await;
            let answer = answer.map_err(|error| error.with_spent(clock.spent()).with_about(policy.about()));
            request.trace.note(Step::Done);
            return Ok(Begun::whole(settle::settle(policy, form, trial.hear(answer)?, clock)));
        }
        // That it begins is Lambda's part; how long it goes on, and where it ends, is the function's.
        let stream = ready.stream(&invoke, deadline).await;
        let stream = stream.map_err(|error| error.with_spent(clock.spent()).with_about(policy.about()));
        let stream = trial.hear(stream)?;
        let (policy, reached) = (Arc::clone(policy), invoke.reached.clone());
        let (aws_request_id, version) = (stream.request_id.clone(), stream.version.clone());
        reached.answered(trace::Answer { aws_request_id, version });
        let mut reading = Box::new(Reading { policy, stream, deadline, clock, permit, reached });
        let Form::Http { request_id, marks } = form else { return Ok(Begun::Coming(None, Bytes::new(), reading)) };
        let mut opening = Opening::new(reading.policy.event, reading.stream.content_type.take());
        let (fault, log) = loop {
            let piece = timeout_at(deadline.at(), reading.next()).await.unwrap_or_else(|_| Err(incomplete(deadline)));
            let piece = piece.map_err(|error| error.with_spent(clock.spent()))?;
            let chunk = match piece {
                lambda::Part::Chunk(chunk) => chunk,
                lambda::Part::End { fault, log } => break (fault, log),
            };
            match opening.push(chunk) {
                Ok(None) => {}
                Ok(Some((head, first))) if !head.is_bodiless() => {
                    return Ok(Begun::Coming(Some(head.marked(marks)), first, reading));
                }
                // Nobody would read to its end what has no body.
                Ok(Some((head, _))) => {
                    let answer = event::Reply::from_head(head.marked(marks), Bytes::new());
                    let drained =
                        timeout_at(deadline.at(), reading.drain()).await.unwrap_or_else(|_| Err(incomplete(deadline)));
                    let (error, log) = drained.map_err(|error| error.with_spent(clock.spent()))?;
                    return Ok(Begun::whole(reading.reply(answer, error, log)));
                }
                Err(why) => {
                    let (answer, error) = settle::malformed(&reading.policy, why, &request_id);
                    return Ok(Begun::whole(reading.reply(answer, Some(error), String::new())));
                }
            }
        };
        // It ended before a response began: what it wrote is the whole output, as that of a buffered call.
        let Reading { policy, stream, clock, .. } = *reading;
        let (fault, payload) = match fault {
            Some((fault, details)) => (Some(fault), details),
            None => (None, opening.end()),
        };
        let (version, request_id_of_aws) = (stream.version.clone(), stream.request_id.clone());
        tokio::spawn(stream.close());
        let answer = Answer { status: 200, payload, fault, version, request_id: request_id_of_aws, log, room: None };
        Ok(Begun::whole(settle::settle(&policy, Form::Http { request_id, marks }, answer, clock)))
    }
}

impl Streamed {
    /// The next part; none after the end.
    ///
    /// # Errors
    /// If the answer breaks off: what came before is not the whole of it, and nothing follows.
    pub async fn next(&mut self) -> Option<Result<Part, Error>> {
        match &mut self.rest {
            Rest::Whole(body, ..) if !body.is_empty() => Some(Ok(Part::Chunk(piece(body)))),
            Rest::Whole(_, end, _) => end.take().map(|end| Ok(Part::End(*end))),
            Rest::Coming(parts) => parts.recv().await,
        }
    }

    /// An answer that is there as a whole.
    fn whole(reply: Reply) -> Self {
        let Reply { status, output, error, version, request_id, log, timing, sizes: _, variables: _, room } = reply;
        let (head, body) = match output {
            Output::None | Output::Changes(_) => (None, Bytes::new()),
            Output::Payload(body) => (None, body),
            Output::Json(text) => (None, Bytes::from(text)),
            Output::Http(answer) => {
                let (head, body) = answer.into_head();
                (Some(head), body)
            }
        };
        let end = End { error, whole: true, log, timing };
        Self { status, version, request_id, head, rest: Rest::Whole(body, Some(Box::new(end)), room) }
    }
}

impl Reading {
    /// Hands on what comes, as fast as it is taken, until the end or until nobody takes it any more.
    async fn run(mut self: Box<Self>, first: Bytes, parts: mpsc::Sender<Result<Part, Error>>, line: Line) {
        let deadline = self.deadline;
        let ended = tokio::select! {
            ended = timeout_at(deadline.at(), self.forward(first, &parts)) => ended.unwrap_or_else(|_| Err(incomplete(deadline))),
            // Dropped, the line tells that the caller went away, and the stream closes its connection.
            () = parts.closed() => return,
        };
        let Self { policy, stream, permit, clock, reached, .. } = *self;
        // Nothing is in flight at Lambda any more, however long the last piece waits to be taken.
        drop(permit);
        match ended {
            Ok(end) => {
                line.answered(Answered {
                    status: 200,
                    error_kind: end.error.as_ref().map(|error| error.kind.as_str()),
                    error: end.error.as_ref().and_then(FunctionError::own_words),
                    error_type: end.error.as_ref().and_then(FunctionError::named),
                    aws_request_id: &stream.request_id,
                    version: &stream.version,
                    queue: end.timing.queue,
                    credentials: end.timing.credentials,
                    lambda: end.timing.lambda,
                    event_bytes: clock.event_bytes,
                    output_bytes: reached.handed_on(),
                });
                // An error means that nobody waits for it.
                tokio::join!(async { drop(parts.send(Ok(Part::End(end))).await) }, stream.close());
            }
            Err(error) => {
                let error = error.with_aws_request_id(Some(&stream.request_id)).with_about(policy.about());
                let error = error.with_spent(clock.spent());
                drop(stream);
                line.failed(&error);
                drop(parts.send(Err(error)).await);
            }
        }
    }

    async fn forward(&mut self, first: Bytes, parts: &mpsc::Sender<Result<Part, Error>>) -> Result<End, Error> {
        let mut chunk = first;
        loop {
            self.reached.hands_on(chunk.len());
            while !chunk.is_empty() {
                if parts.send(Ok(Part::Chunk(piece(&mut chunk)))).await.is_err() {
                    // Whoever races this sees that the channel is closed.
                    std::future::pending::<()>().await;
                }
            }
            match self.next().await? {
                lambda::Part::Chunk(next) => chunk = next,
                lambda::Part::End { fault, log } => {
                    let error = fault.map(|(fault, details)| FunctionError::reported(fault, details));
                    return Ok(End { whole: error.is_none(), error, log, timing: self.clock.timing() });
                }
            }
        }
    }

    /// The next part, if it comes before the policy's patience with a silent function ends.
    async fn next(&mut self) -> Result<lambda::Part, Error> {
        timeout(self.policy.idle_timeout.get(), self.stream.next()).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Waits for the end of what has no body.
    async fn drain(&mut self) -> Result<(Option<FunctionError>, String), Error> {
        loop {
            if let lambda::Part::End { fault, log } = self.next().await? {
                return Ok((fault.map(|(fault, details)| FunctionError::reported(fault, details)), log));
            }
        }
    }

    fn reply(self, answer: event::Reply, error: Option<FunctionError>, log: String) -> Reply {
        Reply {
            status: 200,
            output: Output::Http(answer),
            error,
            version: self.stream.version.clone(),
            request_id: self.stream.request_id.clone(),
            log,
            timing: self.clock.timing(),
            sizes: Sizes { event: self.clock.event_bytes, output: self.reached.handed_on() },
            variables: Default::default(),
            room: None,
        }
    }
}

/// Takes a piece off the front.
fn piece(body: &mut Bytes) -> Bytes {
    body.split_to(body.len().min(PIECE))
}

fn incomplete(deadline: Deadline) -> Error {
    deadline.passed("the answer was complete: the function has run in part at least")
}

fn silent() -> Error {
    Error::new(Kind::Timeout, "the function wrote nothing for as long as the policy's `idle_timeout` allows")
}
