//! `check`: everything that is wrong with a file, and with `--aws` whether AWS lets its policies do what they say.

mod denial;
mod finding;
mod table;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use self::{finding::Finding, table::Row};
use super::{print, wrong};
use crate::{
    admission::Limits,
    config::Config,
    execute::{Choice, Engine, Input, Request},
    lambda,
    policy::{self, Caller, Invocation, Policies, Policy, Qualifier, Timeout, callers::Allowed},
    telemetry::Metrics,
};

/// How many policies are probed at once.
const AT_ONCE: usize = 16;
/// How long one probe may take: as long as it takes to know that STS does not answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long all of them may take.
const MOST: Duration = Duration::from_secs(120);
/// Room for what Lambda says of a dry run.
const ROOM: usize = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Ask AWS for each policy whether its function may be invoked, without running it
    #[arg(long)]
    aws: bool,
}

pub(super) async fn run(args: Args) -> ExitCode {
    let file = args.config.display();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(faults) => return wrong(&faults.to_string()),
    };
    for warning in &config.warnings {
        print(&format!("{file}: warning: {warning}"));
    }
    print(&format!("{file}: {} policies, no fault", config.policies.named.len()));
    if !args.aws {
        return ExitCode::SUCCESS;
    }
    // Nobody reads them.
    let metrics = match Metrics::new(true, None, 0) {
        Ok(metrics) => metrics,
        Err(error) => return wrong(&error),
    };
    lambda::install_crypto();
    let engine = Engine::new(Policies::default(), Limits { in_flight: AT_ONCE, bytes: ROOM }, 1, metrics);
    let rows = probe(&engine, &config.policies).await;
    print(&table::table(&rows));
    ExitCode::from(u8::from(rows.iter().any(|row| row.finding != Finding::Works)))
}

/// Asks AWS about every policy and every qualifier that its calls may choose.
async fn probe(engine: &Engine, policies: &Policies) -> Vec<Row> {
    let mut named: Vec<_> = policies.named.values().collect();
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let probes = named.into_iter().flat_map(|policy| {
        let own = policy.target.qualifier.as_ref();
        let others = policy.qualifiers.iter().filter(move |other| Some(*other) != own);
        std::iter::once(None).chain(others.map(Some)).map(move |chosen| (policy, chosen.cloned()))
    });
    let end = Instant::now() + MOST;
    let rows = probes.map(|(policy, chosen)| row(engine, policy, chosen, end)).collect::<Vec<_>>();
    stream::iter(rows).buffered(AT_ONCE).collect().await
}

async fn row(engine: &Engine, policy: &Policy, chosen: Option<Qualifier>, end: Instant) -> Row {
    let mut function = policy.target.function.to_string();
    if let Some(qualifier) = chosen.as_ref().or(policy.target.qualifier.as_ref()) {
        function = format!("{function}:{qualifier}");
    }
    let now = Instant::now();
    let finding = if now < end {
        let mut request = Request::new(
            Caller::default(),
            Choice::Found(Arc::new(probed(policy))),
            Input::Payload(Bytes::from_static(b"{}")),
            Some(end.min(now + PATIENCE)),
        );
        request.invocation = Some(Invocation::DryRun);
        request.qualifier = chosen;
        match engine.execute(request).await {
            Ok(_) => Finding::Works,
            Err(error) => Finding::of(policy, &error),
        }
    } else {
        Finding::fails("not asked", format!("the others took {} s", MOST.as_secs()))
    };
    let (policy, region) = (policy.name.to_string(), policy.target.region.to_string());
    Row { policy, function, region, finding }
}

/// The policy for whoever asks, with nothing that would answer in AWS's place.
fn probed(policy: &Policy) -> Policy {
    Policy {
        callers: Allowed::Anyone,
        timeout: Timeout::new(PATIENCE).unwrap_or_default(),
        limits: policy::Limits { max_in_flight: None, breaker: None },
        ..policy.clone()
    }
}
