//! Compiles the protos with protox, so that no protoc has to be installed.

use std::{env, fs, path::PathBuf};

use protox::prost_reflect::FileDescriptor;
use tonic_prost_build::Config;

/// The public contract, with what it imports.
const CONTRACT: &str = "lambdapolicy/v1/policy.proto";
/// The protocols of gateways.
const GATEWAYS: [&str; 4] = [
    "envoy/service/ext_proc/v3/external_processor.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "tyk/coprocess.proto",
    "apigee/external_callout.proto",
];
/// What a call's trailers carry.
const LOAD: &str = "xds/data/orca/v3/orca_load_report.proto";
/// What other crates bring and register themselves.
const FOREIGN: &str = "google/rpc/";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("contract.bin"), descriptors(&[CONTRACT], Order::FilesFirst)?)?;
    fs::write(out.join("contract_last.bin"), descriptors(&[CONTRACT], Order::ImportsFirst)?)?;
    fs::write(out.join("gateways.bin"), descriptors(&GATEWAYS, Order::ImportsFirst)?)?;

    let mut config = Config::new();
    // The derived Debug of these would print a secret or a payload.
    config.skip_debug([".lambdapolicy.v1.LambdaPolicy", ".lambdapolicy.v1.ExecutePolicyRequest"]);
    let all: Vec<_> = [CONTRACT, LOAD].into_iter().chain(GATEWAYS).collect();
    let descriptors = protox::compile(all, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// Which files of a descriptor set come first.
#[derive(PartialEq)]
enum Order {
    /// Some gateways read only the first file.
    FilesFirst,
    /// Others build file by file, as protoc orders them.
    ImportsFirst,
}

/// The files and what they import, as a descriptor set with all options.
fn descriptors(files: &[&str], order: Order) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(files)?;
    let pool = compiler.descriptor_pool();
    let mut ordered = Vec::new();
    for name in files {
        let file = pool.get_file_by_name(name).ok_or("a file is missing")?;
        imports_first(file, &mut ordered);
    }
    ordered.retain(|file| !file.name().starts_with(FOREIGN));
    if order == Order::FilesFirst {
        ordered.sort_by_key(|file| !files.contains(&file.name()));
    }
    let mut set = Vec::new();
    for file in ordered {
        let mut encoded = Vec::new();
        file.encode(&mut encoded)?;
        // FileDescriptorSet: field 1, a file each. A type would lose the options that it does not know.
        prost::encoding::bytes::encode(1, &encoded, &mut set);
    }
    Ok(set)
}

fn imports_first(file: FileDescriptor, ordered: &mut Vec<FileDescriptor>) {
    if ordered.contains(&file) {
        return;
    }
    for import in file.dependencies() {
        imports_first(import, ordered);
    }
    ordered.push(file);
}
