//! The findings in columns, for people and for `grep`: a line each.

use super::finding::Finding;

/// A policy, or one of the qualifiers that its calls may choose.
#[derive(Debug)]
pub(super) struct Row {
    pub policy: String,
    pub function: String,
    pub region: String,
    pub finding: Finding,
}

pub(super) fn table(rows: &[Row]) -> String {
    let head = ["POLICY", "FUNCTION", "REGION"];
    let cells: Vec<[&str; 3]> = rows.iter().map(|row| [&*row.policy, &*row.function, &*row.region]).collect();
    let widths: [usize; 3] = std::array::from_fn(|n| {
        let column = cells.iter().chain([&head]).filter_map(|row| row.get(n));
        column.map(|cell| cell.len()).max().unwrap_or_default()
    });
    let line = |row: &[&str; 3], last: &str| {
        let padded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}  {last}\n", padded.join("  "))
    };
    let mut table = line(&head, "RESULT");
    for (row, cells) in rows.iter().zip(&cells) {
        table.push_str(&match &row.finding {
            Finding::Works => line(cells, "works"),
            // What comes from elsewhere is one line, and does nothing to a terminal.
            Finding::Fails { what, remedy } => {
                line(cells, &format!("{what}: {}", remedy.replace(char::is_control, " ")))
            }
        });
    }
    let works = rows.iter().filter(|row| row.finding == Finding::Works).count();
    table.push_str(&format!("{works} of {} work", rows.len()));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be_and_a_finding_is_a_line() {
        let row = |policy: &str, finding| Row {
            policy: policy.into(),
            function: "f".into(),
            region: "us-east-1".into(),
            finding,
        };
        let rows = [row("a", Finding::Works), row("a-long-one", Finding::fails("denied", "two\nlines \u{1b}[31m"))];
        assert_eq!(
            table(&rows),
            "POLICY      FUNCTION  REGION     RESULT\n\
             a           f         us-east-1  works\n\
             a-long-one  f         us-east-1  denied: two lines  [31m\n\
             1 of 2 work"
        );
    }
}
