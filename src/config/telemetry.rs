//! The section `telemetry`: where metrics are pushed.

use std::time::Duration;

use super::{fault::Found, node::Node, section::Section, server::Bounds};
use crate::{policy::endpoint::Url, telemetry::Otlp};

/// Between two pushes, unless the file says otherwise.
const INTERVAL: Duration = Duration::from_secs(30);

pub(super) fn otlp(root: &Node, found: &mut Found) -> Option<Otlp> {
    let telemetry = Section::new(root.get("telemetry"), None, "telemetry");
    let setting = telemetry.get("otlp")?;
    let own = Section::new(Some(setting.node), None, &setting.key);
    let endpoint = own.parse("endpoint", found, |text| Url::parse(text).map(|url| url.as_str().to_owned()));
    let interval = own.bounded("interval", found, |interval| Bounds("1s", "1h").check(interval));
    Some(Otlp { endpoint: endpoint?, interval: interval.unwrap_or(INTERVAL) })
}
