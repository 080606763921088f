//! `dev`: the service with a Lambda of its own.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use secrecy::SecretString;
use tokio::net::TcpListener;

use super::{print, wrong};
use crate::{
    app::{self, Listeners, Source},
    config::Config,
    local::{FaultRule, Function, Lambda, Options},
    policy::{
        Access, Policies, Policy,
        credentials::{AccessKeyId, AccessKeys, Base, Credentials},
        endpoint::{Endpoint, Url},
        secret::Secret,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A configuration: its policies, invoked here instead of at AWS
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A function: a command that speaks Lambda's Runtime API
    #[arg(long, value_name = "NAME=COMMAND", value_parser = function)]
    function: Vec<(String, Vec<String>)>,
    /// Something that goes wrong, such as `orders=throttle:2`, `orders=cut*3`, `*=slow:1s`, `stream=cut-stream:1000`
    #[arg(long, value_name = "FUNCTION=FAULT")]
    fault: Vec<FaultRule>,
}

/// A name and a command whose words are separated by spaces.
fn function(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
    let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
    if name.is_empty() || words.is_empty() {
        return Err("expected NAME=COMMAND".to_owned());
    }
    Ok((name.to_owned(), words))
}

pub(super) async fn run(args: Args) -> ExitCode {
    let mut options = Options::default();
    for (name, command) in args.function {
        options.functions.retain(|function| function.name != name);
        options.functions.push(Function::process(&name, command));
    }
    let names: Vec<_> = options.functions.iter().map(|function| function.name.clone()).collect();
    let lambda = match TcpListener::bind(("127.0.0.1", 0)).await.and_then(|listener| Lambda::start(listener, options)) {
        Ok(lambda) => lambda,
        Err(error) => return wrong(&format!("the embedded lambda cannot listen: {error}")),
    };
    args.fault.into_iter().for_each(|rule| lambda.add_fault(rule));

    let lambda = Arc::new(lambda);
    let source = match args.config.map(|file| redirected(file, &lambda)).transpose() {
        Ok(source) => source,
        Err(error) => return wrong(&error),
    };
    let config = match &source {
        None => Config::parse(&text(&names, lambda.url()), std::path::Path::new("the policies of dev")),
        Some(source) => source.load(),
    };
    let config = match config {
        Ok(config) => config,
        Err(faults) => return wrong(&faults.to_string()),
    };
    let listeners = match Listeners::bind(&config).await {
        Ok(listeners) => listeners,
        Err(error) => return wrong(&error.to_string()),
    };
    print(&invitation(&config));
    match app::run(config, source, listeners, app::stopped()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => wrong(&error.to_string()),
    }
}

/// A policy for each function.
pub(super) fn text(functions: &[String], url: &str) -> String {
    let mut text = format!(
        "server: {{drain_delay: 0s}}\n\
         defaults:\n  region: us-east-1\n  timeout: 30s\n  log: tail\n  endpoint: {{url: '{url}'}}\n  sts_endpoint: '{url}'\n\
         \x20 credentials: {{access_key_id: {}, secret_access_key: {}}}\npolicies:\n",
        Lambda::KEY_ID,
        Lambda::SECRET
    );
    for name in functions {
        text.push_str(&format!("  {name}: {{function: {name}}}\n"));
    }
    text
}

/// A file whose policies have the embedded Lambda in the place of AWS, whenever it is read.
fn redirected(file: PathBuf, lambda: &Arc<Lambda>) -> Result<Source, String> {
    let redirect = Redirect::to(Arc::clone(lambda))?;
    let adapt = move |config: &mut Config| config.policies = redirect.policies(&config.policies);
    Ok(Source { file, adapt: Some(Arc::new(adapt)) })
}

/// Has policies call the embedded Lambda: keys are taught to it, and where the service's own identity would sign, its own
/// key does.
struct Redirect {
    lambda: Arc<Lambda>,
    url: Url,
    own: AccessKeys,
}

impl Redirect {
    fn to(lambda: Arc<Lambda>) -> Result<Self, String> {
        let url = Url::parse(lambda.url()).map_err(|error| format!("the embedded lambda's address {error}"))?;
        let own = AccessKeys {
            id: AccessKeyId::parse(Lambda::KEY_ID).map_err(|error| format!("the embedded lambda's key id {error}"))?,
            secret: Secret::parse(Lambda::SECRET.into())
                .map_err(|error| format!("the embedded lambda's key {error}"))?,
            session_token: None,
        };
        Ok(Self { lambda, url, own })
    }

    fn policies(&self, policies: &Policies) -> Policies {
        let named = policies.named.iter().map(|(name, policy)| {
            let credentials = policy.access.credentials();
            let keys = match credentials.base() {
                Base::Keys(keys) => {
                    self.lambda.set_key(keys.id.as_str(), SecretString::from(keys.secret.expose()));
                    AccessKeys { session_token: None, ..keys.clone() }
                }
                Base::Service => self.own.clone(),
            };
            let access = Access::new(
                policy.access.region().clone(),
                Credentials::new(Base::Keys(keys), credentials.role().cloned()),
                Endpoint::Url(self.url.clone()),
                Some(self.url.clone()),
            );
            (name.clone(), Arc::new(Policy { access, ..Policy::clone(policy) }))
        });
        let inline = policies.inline.clone().map(|defaults| crate::policy::InlineDefaults {
            endpoint: Endpoint::Url(self.url.clone()),
            sts_endpoint: Some(self.url.clone()),
            ..defaults
        });
        Policies {
            callers: policies.callers.clone(),
            named: named.collect(),
            inline,
            routes: policies.routes.clone(),
            unmatched: policies.unmatched,
        }
    }
}

fn invitation(config: &Config) -> String {
    let mut names: Vec<_> = config.policies.named.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    let first = names.iter().find(|name| *name == "greet").or(names.first());
    let policy = first.map_or("POLICY", String::as_str);
    format!(
        "policies: {}\ntry:\n  lambda-policy call {policy} --address {} --data '{{\"name\": \"Ada\"}}'",
        names.join(", "),
        config.server.listen
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_a_name_and_the_words_of_a_command() {
        let (name, command) = function("orders=python3 app.py --fast").unwrap();
        assert_eq!((name.as_str(), command.len()), ("orders", 3));
        for wrong in ["orders", "=x", "orders=", "orders=  "] {
            assert!(function(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_policies_of_dev_have_no_fault() {
        let text = text(&["echo".into(), "my-orders".into()], "http://127.0.0.1:1");
        let config = Config::parse(&text, std::path::Path::new("dev")).unwrap();
        assert_eq!(config.policies.named.len(), 2);
    }

    #[tokio::test]
    async fn a_configurations_keys_and_roles_work_here_too() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let lambda = Lambda::start(listener, Options::default()).unwrap();
        let text = "defaults: {region: eu-west-1}\npolicies:\n  a: {function: f, credentials: {access_key_id: MINE, \
                    secret_access_key: x, assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r'}}}\n  \
                    b: {function: f, credentials: default}\n";
        let config = Config::parse(text, std::path::Path::new("f")).unwrap();
        let lambda = Arc::new(lambda);
        let policies = Redirect::to(Arc::clone(&lambda)).unwrap().policies(&config.policies);
        assert_eq!(policies.named["a"].access.credentials().kind(), "keys and role");
        assert_eq!(policies.named["b"].access.credentials().kind(), "keys");
        assert_eq!(policies.named["b"].access.sts_endpoint().unwrap().as_str(), lambda.url());
    }
}
