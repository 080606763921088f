//! What `deploy/METRICS.md` has to say of every name.

use super::{ALL, FUNCTION_ERRORS, GIVEN_UP, Kind, Values, http, spans};
use crate::error::Kind as Reason;

/// A row for each metric, then one for each histogram and one for each label.
fn of_metrics() -> String {
    let mut rows =
        String::from("| metric | Prometheus | kind | unit | labels | meaning |\n|---|---|---|---|---|---|\n");
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Sum => "up-down counter",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let (name, shown) = (metric.name, metric.prometheus());
        let (unit, labels, doc) = (metric.unit, labels.join(", "), metric.doc);
        rows.push_str(&format!("| `{name}` | `{shown}` | {kind} | `{unit}` | {labels} | {doc} |\n"));
    }
    rows.push_str("\n| histogram | upper bounds of its buckets |\n|---|---|\n");
    for metric in ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
            rows.push_str(&format!("| `{}` | {} |\n", metric.name, bounds.join(", ")));
        }
    }
    rows.push_str("\n| label | of | values |\n|---|---|---|\n");
    let mut told: Vec<(&str, String)> = Vec::new();
    for metric in ALL {
        for label in metric.labels {
            let row = (label.name, label.values.told());
            if told.contains(&row) {
                continue;
            }
            let of: Vec<_> = ALL
                .iter()
                .filter(|other| other.labels.iter().any(|l| l.name == row.0 && l.values.told() == row.1))
                .map(|other| format!("`{}`", other.name))
                .collect();
            rows.push_str(&format!("| `{}` | {} | {} |\n", row.0, of.join(", "), row.1));
            told.push(row);
        }
    }
    rows
}

impl Values {
    fn told(self) -> String {
        let listed = |words: &mut dyn Iterator<Item = &'static str>| {
            words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Words(words) => listed(&mut words.iter().copied()),
            Self::Reasons => listed(&mut Reason::ALL.iter().map(|kind| kind.reason()).chain([http::CANCELLED])),
            Self::Whys => {
                let reasons = Reason::ALL.iter().map(|kind| kind.reason());
                listed(&mut FUNCTION_ERRORS.iter().copied().chain(reasons).chain([GIVEN_UP]))
            }
            Self::From(text) => text.to_owned(),
        }
    }
}

/// A row for each name in a span.
fn of_spans() -> String {
    let mut rows = String::from("| name | of | meaning |\n|---|---|---|\n");
    for (name, of, text) in spans::ALL {
        rows.push_str(&format!("| `{name}` | {of} | {text} |\n"));
    }
    rows
}

#[test]
fn the_documentation_has_these_tables() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/METRICS.md");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for table in [of_metrics(), of_spans()] {
        assert!(text.contains(&table), "deploy/METRICS.md should have this table:\n\n{table}");
    }
}
