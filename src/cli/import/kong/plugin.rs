//! One `aws-lambda` plugin: each of its fields becomes a setting, or is listed.
//!
//! Kong's defaults are this policy's settings, whether the file says them or not: decK dumps say every one.

use std::time::Duration;

use super::{
    super::{
        draft::{Draft, Keys, Policy, Role},
        fields::{Field, Fields, get, join, text},
        names::{Names, Origin, Variables},
        reader::Reader,
    },
    Plugin,
    reference::References,
};
use crate::{
    config::Node,
    policy::{
        Invocation, Qualifier, Region,
        credentials::{RoleArn, SessionName},
        endpoint::Url,
        function::Reference,
    },
};

/// How long Kong waits if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether Kong runs the plugin.
pub(super) fn is_off(plugin: &Plugin<'_>) -> bool {
    text(plugin.node, "enabled") == Some("false")
}

pub(super) fn read(
    plugin: &Plugin<'_>,
    base: Option<(&Node, String)>,
    references: &References<'_>,
    names: &mut Names,
    variables: &mut Variables,
) -> Policy {
    let mut fields = Fields::new(plugin.node, "");
    if let Some(config) = get(plugin.node, "config") {
        fields = Fields::new(config, &join(&plugin.path, "config"));
    } else {
        fields.rest();
    }
    if let Some((base, path)) = base {
        fields = fields.over(Fields::new(base, &path));
    }
    let mut reader = Reader::new(fields, &plugin.path, plugin.node.place, references);
    let role = reader.needed(&["awsassumerolearn"], RoleArn::parse);
    // Kong's own default: a trust policy may ask for it.
    let session_name = reader.spare(&["awsrolesessionname"], SessionName::parse).or_else(|| Some("kong".to_owned()));
    let mut draft = Draft {
        title: text(plugin.node, "instance_name").map(str::to_owned),
        function: reader.needed(&["functionname"], Reference::parse),
        qualifier: reader.needed(&["qualifier"], Qualifier::parse),
        region: reader.needed(&["awsregion"], Region::parse),
        invocation: reader
            .choice(
                &["invocationtype"],
                &[("RequestResponse", "request-response"), ("Event", "event"), ("DryRun", "dry-run")],
            )
            .filter(|invocation| *invocation != Invocation::default().as_str()),
        log: reader.choice(&["logtype"], &[("Tail", "tail"), ("None", "none")]).or(Some("tail")),
        timeout: reader.timeout(&["timeout"]).or(Some(TIMEOUT)),
        role: role.map(|arn| Role { arn, external_id: None, session_name }),
        sts_endpoint: reader.needed(&["awsstsendpointurl"], Url::parse),
        ..Draft::default()
    };
    let function = draft.function.as_deref().unwrap_or_default();
    let function = Reference::parse(function).map_or(function.to_owned(), |known| known.function.name().to_owned());
    let name = names.policy(&[&draft.title.as_deref().unwrap_or_default().to_ascii_lowercase(), &function]);
    draft.keys = keys(&mut reader, &name, variables);
    endpoint(&mut reader, &mut draft);
    event(&mut reader, &mut draft);
    around(&mut reader, plugin);
    if reader.whole
        && let Some((key, message)) = draft.contradiction()
    {
        reader.refuse(&join("config", key), message);
    }
    let Reader { faults, whole, .. } = reader;
    Policy { name, path: plugin.path.clone(), place: plugin.node.place, draft, faults, hints: Vec::new(), whole }
}

fn keys(reader: &mut Reader<'_>, name: &str, variables: &mut Variables) -> Option<Keys> {
    let (id, secret) = match (reader.secret(&["awskey"]), reader.secret(&["awssecret"])) {
        (None, None) => return None,
        (Some(id), Some(secret)) => (id, secret),
        (id, secret) => {
            reader.say(None, "has one half of a key pair: both are set by environment variables now");
            let missing = Origin::Missing(reader.place());
            (id.unwrap_or_else(|| missing.clone()), secret.unwrap_or(missing))
        }
    };
    Some(Keys {
        id: variables.variable(id, &format!("{name}_ACCESS_KEY_ID")),
        secret: variables.variable(secret, &format!("{name}_SECRET_ACCESS_KEY")),
        token: None,
    })
}

/// Host, port and scheme are one address here. Without any of them, the region's own is meant.
fn endpoint(reader: &mut Reader<'_>, draft: &mut Draft) {
    let port: u16 = reader.number(&["port"]).unwrap_or(443);
    let plain = reader.flag(&["disablehttps"], false);
    let scheme = if plain { "http" } else { "https" };
    let port = if plain || port != 443 { format!(":{port}") } else { String::new() };
    let host = reader.needed(&["host"], |host| Url::parse(&format!("https://{host}")));
    if draft.region.is_none()
        && let Some(host) = &host
    {
        draft.region = region(host);
    }
    let own = |region: &String| {
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("lambda.{region}.amazonaws.com{china}")
    };
    let host = host.or_else(|| draft.region.as_ref().filter(|_| plain || !port.is_empty()).map(own));
    draft.endpoint = host.map(|host| format!("{scheme}://{host}{port}"));
}

/// The region in the name of a Lambda endpoint: `lambda.eu-west-1.amazonaws.com`, or a VPC endpoint's.
fn region(host: &str) -> Option<String> {
    let mut parts = host.split('.').skip_while(|part| *part != "lambda" && *part != "lambda-fips");
    let region = parts.nth(1)?;
    Region::parse(region).ok().map(|region| region.to_string())
}

/// What the function is sent, and how its answer is read.
fn event(reader: &mut Reader<'_>, draft: &mut Draft) {
    let parts = ["method", "uri", "headers", "body"];
    let forwarded = parts.map(|part| reader.flag(&[&format!("forwardrequest{part}")], false));
    let gateway = reader.flag(&["awsgatewaycompatible"], false);
    let second =
        reader.choice(&["awsgatewaycompatiblepayloadversion"], &[("1.0", "1.0"), ("2.0", "2.0")]) == Some("2.0");
    let proxy = reader.flag(&["isproxyintegration"], false);
    let base64 = reader.flag(&["base64encodebody"], true);
    draft.event = match (gateway, forwarded.contains(&true)) {
        (true, _) if second => {
            reader.say(None, "has kong's payload 2.0: the function is sent that of an HTTP API, which may tell more");
            Some("http-api")
        }
        (true, _) => Some("kong-gateway"),
        (false, true) => {
            let missing: Vec<_> = parts.iter().zip(forwarded).filter(|(_, on)| !on).map(|(part, _)| *part).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                reader
                    .say(None, format_args!("does not forward the request's {missing}: the function is sent them too"));
            }
            Some("kong")
        }
        (false, false) => {
            let message = "forwards no part of the request: the function is sent the body alone, and no arguments of a \
                           query or form as kong does";
            reader.say(None, message);
            None
        }
    };
    if !base64 && matches!(draft.event, Some("kong" | "kong-gateway")) {
        reader.say(None, "has `base64_encode_body` off: the function is sent base64, and told so");
    }
    match (proxy, draft.event) {
        (true, None) => {
            reader.say(None, "has `is_proxy_integration`: without a forwarded request, the output is the body here")
        }
        (false, Some(_)) => {
            let message = "has no `is_proxy_integration`: here an HTTP call's answer is made from `statusCode`, `headers` \
                           and `body` of the output all the same";
            reader.say(None, message);
        }
        _ => {}
    }
    let status = reader.field(&["unhandledstatus"]);
    if let Some(status) = status {
        match reader.number_of::<u16>(&status) {
            Some(code @ 200..=599) => {
                draft.unhandled_status = Some(code);
                if proxy {
                    reader.say(
                        Some(&status),
                        "is the answer to every failure now: beside `is_proxy_integration`, kong says 502",
                    );
                }
            }
            Some(_) => reader.say(Some(&status), "is not taken over: a status here is from 200 to 599"),
            None => {}
        }
    }
}

/// What is left of the configuration, and what stands around it.
fn around(reader: &mut Reader<'_>, plugin: &Plugin<'_>) {
    if is_off(plugin) {
        reader.refuse("enabled", "is false: kong does not run it");
    }
    for field in reader.rest() {
        if let Some(why) = why_not(&field) {
            reader.say(Some(&field), format_args!("is not taken over: {why}"));
        }
    }
    const KNOWN: [&str; 16] = [
        "name",
        "config",
        "_config",
        "enabled",
        "route",
        "service",
        "consumer",
        "consumer_group",
        "instance_name",
        "id",
        "tags",
        "protocols",
        "created_at",
        "updated_at",
        "run_on",
        "_comment",
    ];
    let mut others = Fields::new(plugin.node, &plugin.path);
    for field in others.rest() {
        let key = field.path.rsplit('.').next().unwrap_or_default();
        if !KNOWN.contains(&key) {
            reader.say(Some(&field), "is not taken over: the service has no such setting");
        }
    }
}

/// Why a field is not taken over, unless the service does that anyway.
fn why_not(field: &Field<'_>) -> Option<&'static str> {
    Some(match (field.name(), field.node.text()) {
        // The service sends large bodies, asks the instance in the safer way, and tells empty arrays from empty objects.
        ("skiplargebodies" | "awsimdsprotocolversion" | "emptyarraysmode", _) => return None,
        ("keepalive", Some("60000")) => return None,
        ("keepalive", _) => "the service keeps its connections for 50s",
        ("proxyurl" | "proxyscheme", _) => "the service has no proxy: let `endpoint` name an address that it reaches",
        _ => "the service has no such setting",
    })
}
