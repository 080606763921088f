//! One Lambda policy of an assembly: each of its properties becomes a setting, or is listed.

use std::time::Duration;

use super::{
    super::{
        draft::{Draft, Keys, Policy, Role},
        fields::{Field, Fields, fold, get, join, text},
        names::{Names, Origin, Variables},
        reader::Reader,
    },
    Item, POLICIES,
    properties::Properties,
};
use crate::policy::{
    Qualifier, Region,
    credentials::{ExternalId, RoleArn, SessionName},
    function::Reference,
};

pub(super) fn read(
    item: &Item<'_>,
    properties: &Properties<'_>,
    names: &mut Names,
    variables: &mut Variables,
) -> Policy {
    let mut reader = Reader::new(fields(item), &item.path, item.place, properties);
    let mut draft = Draft {
        title: reader.words(&["title"]),
        description: reader.words(&["description"]),
        function: reader.needed(&["functionname", "function", "functionarn"], Reference::parse),
        region: reader.needed(&["awsregion", "region"], Region::parse),
        qualifier: reader.needed(&["qualifier"], Qualifier::parse),
        invocation: reader.choice(
            &["invocationtype", "invocation"],
            &[("requestResponse", "request-response"), ("event", "event"), ("dryRun", "dry-run")],
        ),
        ..Draft::default()
    };
    // API Studio names its policies elsewhere.
    draft.title = draft.title.or_else(|| Some(text(get(item.node, "metadata")?, "name")?.to_owned()));
    let name = name(&draft, names);

    // A role of another kind, or of another account, would be somebody else.
    let arn = reader.needed(&["awsassumerolearn", "assumerolearn", "rolearn"], RoleArn::parse);
    let external_id = reader.needed(&["externalid", "awsexternalid", "awsassumeroleexternalid"], ExternalId::parse);
    let session_name = reader.spare(&["rolesessionname", "awsrolesessionname", "sessionname"], SessionName::parse);
    if arn.is_none() && (external_id.is_some() || session_name.is_some()) {
        reader.say(None, "has what belongs to a role, but no role");
    }
    let mut hints = Vec::new();
    if arn.is_some() && external_id.is_none() {
        hints.push(
            "api connect assumes this role with the provider organization's id as the external id: \
             let the role trust this service, and set `external_id` if it asks for one"
                .to_owned(),
        );
    }
    draft.role = arn.map(|arn| Role { arn, external_id, session_name });
    draft.keys = keys(&mut reader, &name, variables);
    if draft.keys.is_none() && draft.role.is_none() && reader.whole {
        reader.refuse("aws_access_key_id", "is missing, and so is a role: a Lambda policy has keys or a role");
    }
    draft.timeout = timeout(&mut reader);
    reader.field(&["version"]);
    for field in reader.rest() {
        if let Some(why) = why_not(&field) {
            reader.say(Some(&field), format_args!("is not taken over: {why}"));
        }
    }
    if reader.whole
        && let Some((key, message)) = draft.contradiction()
    {
        reader.refuse(key, message);
    }
    let Reader { faults, whole, .. } = reader;
    Policy { name, path: item.path.clone(), place: item.place, draft, faults, hints, whole }
}

/// The properties, however deep the document puts them.
fn fields<'a>(item: &Item<'a>) -> Fields<'a> {
    let mut fields = Fields::new(item.node, &item.path);
    if let Some(spec) = get(item.node, "spec") {
        // What stands around the properties says only what they are.
        while fields.take(&["spec", "kind", "apiversion", "metadata"]).is_some() {}
        fields = Fields::new(spec, &join(&item.path, "spec")).over(fields);
    }
    fields.flatten(&["clientconfig", "awsauthtype"]);
    fields
}

/// A name that people know it by: the title, unless it is the one that every Lambda policy begins with.
fn name(draft: &Draft, names: &mut Names) -> String {
    let title = draft.title.as_deref().filter(|title| !POLICIES.contains(&fold(title).as_str()));
    let title = title.unwrap_or_default().to_ascii_lowercase();
    let function = draft.function.as_deref().unwrap_or_default();
    let function = Reference::parse(function).map_or(function.to_owned(), |known| known.function.name().to_owned());
    names.policy(&[&title, &function])
}

fn keys(reader: &mut Reader<'_>, name: &str, variables: &mut Variables) -> Option<Keys> {
    let id = reader.secret(&["awsaccesskeyid", "accesskeyid", "awsaccesskey", "accesskey"]);
    let secret = reader.secret(&["awssecretaccesskey", "secretaccesskey", "awssecretkey", "secretkey"]);
    let token = reader.secret(&["awssessiontoken", "sessiontoken"]);
    // One secret of the gateway has both keys.
    let both = reader.field(&["accesssecret"]).map(|field| Origin::Named(field.node.place));
    let (id, secret) = match (id.or(both.clone()), secret.or(both)) {
        (None, None) => {
            if token.is_some() {
                reader.say(None, "has a session token, but no keys");
            }
            return None;
        }
        (Some(id), Some(secret)) => (id, secret),
        (id, secret) => {
            reader.say(None, "has one half of a key pair: both are set by environment variables now");
            let place = Origin::Missing(reader.place());
            (id.unwrap_or_else(|| place.clone()), secret.unwrap_or(place))
        }
    };
    Some(Keys {
        id: variables.variable(id, &format!("{name}_ACCESS_KEY_ID")),
        secret: variables.variable(secret, &format!("{name}_SECRET_ACCESS_KEY")),
        token: token.map(|token| variables.variable(token, &format!("{name}_SESSION_TOKEN"))),
    })
}

/// The time for the whole call, or else that for one request.
fn timeout(reader: &mut Reader<'_>) -> Option<Duration> {
    let whole = reader.timeout(&["clientexecutiontimeout"]);
    let Some(request) = reader.field(&["requesttimeout"]) else { return whole };
    if whole.is_none() {
        return reader.timeout_of(&request);
    }
    if request.node.text().and_then(|text| text.parse().ok()).map(Duration::from_millis) != whole {
        reader.say(Some(&request), "is not taken over: `clientExecutionTimeout` bounds the call");
    }
    whole
}

/// Why a property is not taken over, unless the service does that anyway.
fn why_not(field: &Field<'_>) -> Option<&'static str> {
    Some(match field.name() {
        "enablekeepalive" if field.node.text() == Some("true") => return None,
        "tlsclientprofile" | "tlsconnectionprofile" => {
            "https is trusted by the system's root certificates, or `SSL_CERT_FILE`"
        }
        "clientretrycount" | "retryonerrorcount" | "serverretrycount" | "enablethrottledretries" => {
            "the service sends again what provably did not run, and nothing else"
        }
        "input" | "inputmessage" | "output" | "outputmessage" => {
            "the gateway chooses what it sends and what becomes of the answer"
        }
        "sockettimeout" | "connectiontimeout" => "`timeout` bounds the whole call",
        "enablekeepalive" | "connectionexpirationtimeout" | "maxconnectionidletime" => {
            "the service keeps its connections by its own rules"
        }
        "timeout" => "its unit is not known: write it as the policy's `timeout`",
        _ => "the service has no such setting",
    })
}
