//! The README tells the truth.

use lambda_policy::{config, error::Kind};

const README: &str = include_str!("../../README.md");

#[test]
fn the_table_of_settings_is_the_programs_own() {
    assert!(README.contains(&config::table()), "put this into README.md:\n\n{}", config::table());
}

#[test]
fn every_reason_is_explained() {
    for kind in Kind::ALL {
        assert!(README.contains(&format!("`{}`", kind.reason())), "{kind}");
    }
}

#[test]
fn the_policy_file_that_it_explains_has_no_fault() {
    let text = README.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // What it refers to is not there in a test.
    let text = text.replace("{env: ORDERS_KEY_ID}", "AKIDEXAMPLE").replace("{file: /run/secrets/orders}", "a-secret");
    let config = config::Config::parse(&text, "README.md".as_ref()).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(config.policies.named.len() > 1);
}
