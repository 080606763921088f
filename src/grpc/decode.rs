//! The wire's request as the engine's, with every fault at once.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use crate::{
    error::{Error, Violation, unread},
    event,
    execute::{self, Choice, Input, Request},
    pb::{self, execute_policy_request as wire},
    policy::{Caller, ClientContext, InlineDefaults, Qualifier, Tenant, proto},
};

/// Parses a request. `inline` gives what inline policies start from, if they may be brought.
/// `about` adds to an error what is known of the policy of a name.
///
/// # Errors
/// [`Kind::InvalidRequest`] with every field that is wrong; what `inline` says against an inline policy.
///
/// [`Kind::InvalidRequest`]: crate::error::Kind::InvalidRequest
pub(super) fn request(
    wire: pb::ExecutePolicyRequest,
    caller: Caller,
    deadline: Option<Instant>,
    inline: impl FnOnce() -> Result<InlineDefaults, Error>,
    about: impl FnOnce(&str, Error) -> Error,
) -> Result<Request, Error> {
    let pb::ExecutePolicyRequest { policy, lambda, input, invocation, qualifier, context, tenant } = wire;
    let mut faults = Vec::new();

    // The named policy is none of them, so that its name can still be told if something else is wrong.
    let inline = match (policy.is_empty(), lambda) {
        (false, None) => Some(None),
        (true, Some(lambda)) => {
            let defaults = inline()?;
            match proto::inline(lambda, &defaults) {
                Ok(policy) => Some(Some(Arc::new(policy))),
                Err(error) => {
                    faults.extend_from_slice(error.violations());
                    None
                }
            }
        }
        (false, Some(_)) => fault(&mut faults, "lambda", "is set beside `policy`: set one of the two"),
        (true, None) => fault(&mut faults, "policy", "is missing: name a configured policy, or set `lambda`"),
    };
    let input = match input {
        Some(wire::Input::Payload(bytes)) => Some(Input::Payload(bytes)),
        Some(wire::Input::Json(text)) => match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Some(Input::Json(text)),
            Err(error) => fault(&mut faults, "json", format!("is not JSON: {}", unread(&error))),
        },
        Some(wire::Input::Http(http)) => match call(http) {
            Ok(call) => Some(Input::Http(Box::new(call))),
            Err(violation) => {
                faults.push(violation);
                None
            }
        },
        None => fault(&mut faults, "input", "is missing: set one of `payload`, `json` and `http`"),
    };
    let invocation = match proto::invocation(invocation) {
        Ok(invocation) => invocation,
        Err(wrong) => fault(&mut faults, "invocation", wrong),
    };
    let qualifier = optional(&mut faults, "qualifier", &qualifier, Qualifier::parse);
    let context = optional(&mut faults, "context", &context, ClientContext::parse);
    let tenant = optional(&mut faults, "tenant", &tenant, Tenant::parse);

    match (inline, input) {
        (Some(inline), Some(input)) if faults.is_empty() => {
            let policy = inline.map_or_else(|| Choice::Named(policy), Choice::Found);
            Ok(Request { invocation, qualifier, context, tenant, ..Request::new(caller, policy, input, deadline) })
        }
        _ => Err(about(&policy, Error::invalid(faults))),
    }
}

fn fault<T>(faults: &mut Vec<Violation>, field: &str, description: impl Into<String>) -> Option<T> {
    faults.push(Violation { field: field.to_owned(), description: description.into() });
    None
}

fn optional<T, E: std::fmt::Display>(
    faults: &mut Vec<Violation>,
    field: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    if text.is_empty() {
        return None;
    }
    parse(text).map_err(|error| fault::<T>(faults, field, error.to_string())).ok()
}

fn call(http: pb::HttpRequest) -> Result<event::Call, Violation> {
    // Named one by one, so that a new field of the contract is a question for the compiler.
    let pb::HttpRequest {
        method,
        path,
        query,
        headers,
        body,
        source_ip,
        scheme,
        authority,
        protocol,
        route,
        stage,
        path_parameters,
        stage_variables,
        request_id,
        authorizer,
        account_id,
        api_id,
    } = http;
    let wrong = |field: &str, description: String| Violation { field: format!("http.{field}"), description };
    if method.is_empty() {
        return Err(wrong("method", "is missing".to_owned()));
    }
    let authorizer = if authorizer.is_empty() {
        None
    } else {
        let json = serde_json::value::RawValue::from_string(authorizer);
        Some(json.map_err(|error| wrong("authorizer", format!("is not JSON: {}", unread(&error))))?)
    };
    Ok(event::Call {
        method,
        path,
        query,
        headers: headers.into_iter().map(|header| (header.name, header.value)).collect(),
        body,
        source_ip,
        scheme,
        authority,
        protocol,
        route,
        stage,
        path_parameters: path_parameters.into_iter().collect(),
        stage_variables: stage_variables.into_iter().collect(),
        request_id: if request_id.is_empty() { execute::request_id() } else { request_id },
        authorizer,
        account_id,
        api_id,
        received: SystemTime::now(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{error::Kind, policy::Policies};

    fn wire() -> pb::ExecutePolicyRequest {
        pb::ExecutePolicyRequest {
            policy: "orders".into(),
            input: Some(wire::Input::Json("{}".into())),
            ..Default::default()
        }
    }

    fn fields(wire: pb::ExecutePolicyRequest) -> Vec<String> {
        let error =
            request(wire, Caller::default(), None, || Ok(InlineDefaults::default()), |_, error| error).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidRequest);
        error.violations().iter().map(|v| v.field.clone()).collect()
    }

    #[test]
    fn each_wrong_field_is_named() {
        let http = |w: &mut pb::ExecutePolicyRequest, method: &str, authorizer: &str| {
            let http = pb::HttpRequest { method: method.into(), authorizer: authorizer.into(), ..Default::default() };
            w.input = Some(wire::Input::Http(http));
        };
        type Change<'a> = &'a dyn Fn(&mut pb::ExecutePolicyRequest);
        let rows: [(&str, Change<'_>, &str); 10] = [
            ("no method", &|w| http(w, "", ""), "http.method"),
            ("an authorizer that is no JSON", &|w| http(w, "GET", "{"), "http.authorizer"),
            ("no policy", &|w| w.policy.clear(), "policy"),
            ("two policies", &|w| w.lambda = Some(pb::LambdaPolicy::default()), "lambda"),
            ("no input", &|w| w.input = None, "input"),
            ("JSON that is none", &|w| w.input = Some(wire::Input::Json("{".into())), "json"),
            ("an unknown invocation", &|w| w.invocation = 7, "invocation"),
            ("a qualifier that AWS refuses", &|w| w.qualifier = "a b".into(), "qualifier"),
            ("a context that is no object", &|w| w.context = "1".into(), "context"),
            ("a tenant with a line break", &|w| w.tenant = "a\nb".into(), "tenant"),
        ];
        for (what, change, field) in rows {
            let mut wire = wire();
            change(&mut wire);
            assert_eq!(fields(wire), [field], "{what}");
        }
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let wire = pb::ExecutePolicyRequest { context: "x".into(), ..Default::default() };
        assert_eq!(fields(wire), ["policy", "input", "context"]);
    }

    #[test]
    fn an_inline_policy_is_denied_unless_it_is_allowed() {
        let wire =
            pb::ExecutePolicyRequest { policy: String::new(), lambda: Some(pb::LambdaPolicy::default()), ..wire() };
        let denied = || Policies::default().inline(&Caller::default()).cloned();
        let error = request(wire, Caller::default(), None, denied, |_, error| error).unwrap_err();
        assert_eq!(error.kind(), Kind::CallerDenied);
    }
}
