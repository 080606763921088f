//! The templates and policies of `deploy/aws`.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::{Value, json};

use super::{both, deploy, listing};
use crate::support::{Directory, linters::Linters};

#[test]
fn templates_and_policies_for_aws_have_no_lint() {
    let linters = Linters::install();
    let (right, wrong) = (Directory::new(), Directory::new());
    let policies = listing(&deploy("aws/policies"), "json");
    for file in &policies {
        let name = file.file_name().unwrap().to_string_lossy();
        // A linter of templates knows policies as parts of one.
        let template = |text: &str| {
            let document: Value = serde_json::from_str(text).unwrap();
            let resource = if name.starts_with("trust-") {
                json!({"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": document}})
            } else {
                json!({"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}})
            };
            json!({"Resources": {"Linted": resource}}).to_string()
        };
        let text = fs::read_to_string(file).unwrap();
        right.write(&name, &template(&text));
        wrong.write(&name, &template(&text.replace("\"Effect\"", "\"Effekt\"")));
    }
    let lint = |files: Vec<PathBuf>| {
        let files = files.iter().map(|file| file.to_string_lossy());
        let args: Vec<_> = ["--format", "parseable", "--"].into_iter().map(Into::into).chain(files).collect();
        let output = linters.run("cfn-lint", &args.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        (output.status.success(), both(&output))
    };
    let templates = listing(&deploy("aws"), "yaml");
    assert_eq!((templates.len(), policies.len()), (4, 5));
    let (content, said) = lint([templates, listing(&right.0, "json")].concat());
    assert!(content, "{said}");
    let (_, said) = lint(listing(&wrong.0, "json"));
    for file in policies {
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(said.contains(&*name), "a fault in {name} is found: {said}");
    }
}

#[test]
fn nothing_at_aws_is_allowed_that_the_service_does_not_do() {
    const ACTIONS: [&str; 4] =
        ["lambda:InvokeFunction", "sts:AssumeRole", "sts:TagSession", "sts:AssumeRoleWithWebIdentity"];
    let mut found = BTreeSet::new();
    for file in [listing(&deploy("aws"), "yaml"), listing(&deploy("aws/policies"), "json")].concat() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("Resource: \"*\"") && !text.contains("\"Resource\": \"*\""), "{}", file.display());
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
        let action = |word: &&str| {
            word.split_once(':').is_some_and(|(service, name)| {
                ["lambda", "sts", "iam", "ec2", "eks"].contains(&service)
                    && name.starts_with(|c: char| c.is_ascii_uppercase())
            })
        };
        // A condition's key, not an action.
        found.extend(words.filter(action).filter(|word| *word != "sts:ExternalId").map(str::to_owned));
    }
    assert_eq!(found, ACTIONS.iter().map(|action| (*action).to_owned()).collect());
}
