//! What an HTTP client is told of a call, whichever front its gateway came through.

use super::call::{Output, Reply};
use crate::{
    error::Error,
    event::{self, accepted},
};

/// The HTTP answer of a call: the function's, or why there is none.
pub fn http(result: Result<Reply, Error>, request_id: &str) -> event::Reply {
    match result {
        Ok(mut reply) => take(&mut reply),
        Err(error) => problem(&error, request_id),
    }
}

/// Takes the HTTP answer out of a reply and leaves there what is said beside it.
///
/// An event that is queued, and a dry run, have no output: the answer is Lambda's status and id.
pub fn take(reply: &mut Reply) -> event::Reply {
    match std::mem::replace(&mut reply.output, Output::None) {
        Output::Http(answer) => answer,
        // An HTTP call has no other output than these.
        Output::None | Output::Payload(_) | Output::Json(_) | Output::Changes(_) => {
            accepted(reply.status, &reply.request_id)
        }
    }
}

/// The answer where there is none of the function: the status of the error's kind, and the reason as JSON.
pub fn problem(error: &Error, request_id: &str) -> event::Reply {
    let kind = error.kind();
    event::problem(kind.http_status(), kind.reason(), error.message(), request_id, error.retry_after())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::Kind;

    fn reply(status: u16, output: Output) -> Reply {
        Reply {
            status,
            output,
            error: None,
            version: String::new(),
            request_id: "aws-1".to_owned(),
            log: String::new(),
            timing: Default::default(),
            sizes: Default::default(),
            variables: Default::default(),
            room: None,
        }
    }

    #[test]
    fn a_call_is_answered_by_its_function_by_lambda_or_by_the_table_of_errors() {
        let own = event::Reply { status: 418, headers: Vec::new(), body: Bytes::from_static(b"tea") };
        assert_eq!(http(Ok(reply(200, Output::Http(own.clone()))), "r-1"), own);

        for status in [202, 204] {
            let queued = http(Ok(reply(status, Output::None)), "r-1");
            assert_eq!((queued.status, queued.header("x-amzn-requestid")), (status, Some("aws-1")));
            assert!(queued.body.is_empty());
        }

        let busy = http(Err(Error::new(Kind::FunctionThrottled, "busy").with_detail("the operator's")), "r-1");
        assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")));
        assert_eq!(busy.body, r#"{"message":"busy","reason":"FUNCTION_THROTTLED","requestId":"r-1"}"#);
    }
}
