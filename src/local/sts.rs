//! STS's AssumeRole: temporary keys that the Invoke API accepts.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use http::{Response, StatusCode};
use secrecy::SecretString;

use super::{
    server::{Answer, full},
    sigv4::Key,
};

/// A role that may be assumed.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy asks for.
    pub external_id: Option<String>,
}

/// What AssumeRole is to do.
pub(super) struct AssumeRole {
    arn: String,
    session: String,
    external_id: Option<String>,
    duration: Duration,
}

/// Why it is not done.
pub(super) struct Refused {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

/// Keys that were given out.
pub(super) struct Issued {
    pub id: String,
    pub key: Key,
    answer: String,
}

impl AssumeRole {
    /// Reads a form as the query protocol sends it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let form: HashMap<_, _> = String::from_utf8_lossy(body)
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decode(value)))
            .collect();
        let invalid = |message: &str| Refused {
            status: StatusCode::BAD_REQUEST,
            code: "ValidationError",
            message: message.to_owned(),
        };
        if form.get("Action").map(String::as_str) != Some("AssumeRole") {
            return Err(Refused {
                status: StatusCode::BAD_REQUEST,
                code: "InvalidAction",
                message: "only AssumeRole is known here".to_owned(),
            });
        }
        let needed = |name: &str| form.get(name).cloned().ok_or_else(|| invalid(&format!("{name} is missing")));
        let seconds =
            match form.get("DurationSeconds") {
                None => 3600,
                Some(text) => text.parse().ok().filter(|s| (900..=43_200).contains(s)).ok_or_else(|| {
                    invalid("1 validation error detected: DurationSeconds must be between 900 and 43200")
                })?,
            };
        Ok(Self {
            arn: needed("RoleArn")?,
            session: needed("RoleSessionName")?,
            external_id: form.get("ExternalId").cloned(),
            duration: Duration::from_secs(seconds),
        })
    }

    /// Gives out keys, if the role's trust policy lets the caller have them; any role may be assumed if none is listed.
    pub(super) fn issue(&self, roles: &[Role], lifetime: Option<Duration>, now: SystemTime) -> Result<Issued, Refused> {
        let trusted = roles.is_empty()
            || roles.iter().any(|role| {
                role.arn == self.arn && (role.external_id.is_none() || role.external_id == self.external_id)
            });
        if !trusted {
            return Err(Refused {
                status: StatusCode::FORBIDDEN,
                code: "AccessDenied",
                message: format!("User is not authorized to perform: sts:AssumeRole on resource: {}", self.arn),
            });
        }
        let id = format!("ASIA{}", random(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
        let secret = random(40, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        let token = random(200, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        let expires = now + lifetime.unwrap_or(self.duration);
        let assumed =
            format!("{}/{}", self.arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/"), self.session);
        let answer = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
             <AssumedRoleUser><Arn>{assumed}</Arn><AssumedRoleId>AROALOCAL:{session}</AssumedRoleId></AssumedRoleUser>\
             <Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{expiry}</Expiration></Credentials></AssumeRoleResult>\
             <ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></AssumeRoleResponse>",
            session = self.session,
            expiry = humantime::format_rfc3339_seconds(expires),
            request = super::request_id(),
        );
        let key =
            Key { secret: SecretString::from(secret), token: Some(SecretString::from(token)), expires: Some(expires) };
        Ok(Issued { id, key, answer })
    }
}

impl Issued {
    pub(super) fn answer(&self) -> Answer {
        xml(StatusCode::OK, self.answer.clone())
    }
}

impl Refused {
    pub(super) fn answer(&self) -> Answer {
        let fault = if self.status.is_server_error() { "Receiver" } else { "Sender" };
        xml(
            self.status,
            format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>{fault}</Type>\
                 <Code>{}</Code><Message>{}</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
                self.code,
                self.message,
                super::request_id()
            ),
        )
    }
}

fn xml(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/xml"));
    Ok(response)
}

/// Enough for keys that live on one machine for an hour; nothing else may rely on it.
fn random(length: usize, alphabet: &[u8]) -> String {
    (0..length).filter_map(|_| fastrand::choice(alphabet).map(|byte| char::from(*byte))).collect()
}

/// Percent-decoding of a form's value.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
