//! The section `telemetry`: where metrics and spans are pushed.

use std::time::Duration;

use super::{fault::Found, node::Node, section::Section, server::Bounds};
use crate::{policy::endpoint::Url, telemetry::Otlp};

/// Between two pushes, unless the file says otherwise.
const INTERVAL: Duration = Duration::from_secs(30);

/// Of calls whose callers have not decided, unless the file says otherwise. A call with its spans takes half as much again.
const RATIO: f64 = 0.01;

/// Whether there are metrics.
pub(super) fn metrics(root: &Node) -> bool {
    Section::new(root.get("telemetry"), None, "telemetry").text("metrics").is_none_or(|choice| choice == "on")
}

pub(super) fn otlp(root: &Node, warnings: &mut Vec<String>, found: &mut Found) -> Option<Otlp> {
    let telemetry = Section::new(root.get("telemetry"), None, "telemetry");
    let traces = telemetry.get("traces");
    let Some(setting) = telemetry.get("otlp") else {
        if traces.is_some_and(|traces| traces.node.text().is_none()) {
            warnings.push(
                "telemetry.traces: no spans are made, as `telemetry.otlp` does not say where to push them".to_owned(),
            );
        }
        return None;
    };
    let traces = match traces {
        Some(traces) if traces.node.text().is_some() => None,
        traces => {
            let own = Section::new(traces.as_ref().map(|traces| traces.node), None, "telemetry.traces");
            Some(own.text("ratio").and_then(|ratio| ratio.parse().ok()).unwrap_or(RATIO))
        }
    };
    let own = Section::new(Some(setting.node), None, &setting.key);
    let endpoint = own.parse("endpoint", found, |text| Url::parse(text).map(|url| url.as_str().to_owned()));
    let interval = own.bounded("interval", found, |interval| Bounds("1s", "1h").check(interval));
    Some(Otlp { endpoint: endpoint?, interval: interval.unwrap_or(INTERVAL), traces })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn spans_are_made_where_there_is_somewhere_to_push_them() {
        for (telemetry, traces, warned) in [
            ("{}", None, false),
            ("{traces: {ratio: 1}}", None, true),
            ("{traces: off}", None, false),
            ("{otlp: {endpoint: 'http://c:4317'}}", Some(0.01), false),
            ("{otlp: {endpoint: 'http://c:4317'}, traces: {}}", Some(0.01), false),
            ("{otlp: {endpoint: 'http://c:4317'}, traces: {ratio: 0.5}}", Some(0.5), false),
            ("{otlp: {endpoint: 'http://c:4317'}, traces: {ratio: 0}}", Some(0.0), false),
            ("{otlp: {endpoint: 'http://c:4317'}, traces: off}", None, false),
        ] {
            let config = Config::parse(&format!("telemetry: {telemetry}"), Path::new("f")).unwrap();
            assert_eq!(config.otlp.and_then(|otlp| otlp.traces), traces, "{telemetry}");
            assert_eq!(!config.warnings.is_empty(), warned, "{telemetry}: {:?}", config.warnings);
        }
    }
}
