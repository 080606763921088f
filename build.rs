//! Compiles the protos with protox, so that no protoc has to be installed.

use std::{env, fs, path::PathBuf};

use tonic_prost_build::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let protos = ["lambdapolicy/v1/policy.proto", "tyk/coprocess.proto", "apigee/external_callout.proto"];
    let descriptors = protox::compile(protos, ["proto"])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut encoded = Vec::new();
    prost::Message::encode(&descriptors, &mut encoded)?;
    fs::write(out.join("descriptors.bin"), encoded)?;

    let mut config = Config::new();
    // The derived Debug of these would print a secret or a payload.
    config.skip_debug([".lambdapolicy.v1.LambdaPolicy", ".lambdapolicy.v1.ExecutePolicyRequest"]);
    tonic_prost_build::configure().bytes(".").compile_fds_with_config(descriptors, config)?;
    Ok(())
}
