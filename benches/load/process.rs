//! Processes on cores of their own, which end with the run.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Outcome, cpu};

/// How long a process may take until it can be called.
const START: Duration = Duration::from_secs(30);

/// Some cores, as `taskset` takes them.
#[derive(Clone, Debug)]
pub(crate) struct Cores(Vec<usize>);

/// Who runs where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The target: one core.
    pub target: Cores,
    /// The target with two workers.
    pub pair: Cores,
    pub upstream: Cores,
    pub load: Cores,
    /// All cores that two workers leave; if they leave none, those that they have.
    pub rest: Cores,
}

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Plan {
    /// The cores of this machine, dealt out.
    pub(crate) fn here() -> Outcome<Self> {
        let all = cpu::cores()?;
        let some = |range: &[usize]| Cores(range.to_vec());
        match all.as_slice() {
            [target, upstream, load, more @ ..] => Ok(Self {
                target: some(&[*target]),
                pair: some(&[*target, *upstream]),
                upstream: some(&[*upstream]),
                // One is enough, and what else the machine does finds room on the others.
                load: some(&[*load]),
                rest: Cores([load].into_iter().chain(more).copied().collect()),
            }),
            [target, rest] => Ok(Self {
                target: some(&[*target]),
                pair: some(&[*target, *rest]),
                upstream: some(&[*rest]),
                load: some(&[*rest]),
                rest: some(&[*target, *rest]),
            }),
            _ => Err("at least two cores are needed: one for the target alone".into()),
        }
    }

    /// Whether two workers share their cores with the load.
    pub(crate) fn is_full(&self) -> bool {
        self.pair.0.iter().any(|core| self.rest.0.contains(core))
    }

    /// Whether the load shares its core with the upstream, to which it then gives way.
    pub(crate) fn is_tight(&self) -> bool {
        self.upstream.0 == self.load.0
    }
}

impl Cores {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {} for the target, {} for the upstream, {} for the load", self.target, self.upstream, self.load)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores: Vec<_> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&cores.join(","))
    }
}

impl Process {
    /// Starts a program on these cores; what it says goes nowhere.
    pub(crate) fn start<A: AsRef<OsStr>>(
        cores: &Cores,
        program: &OsStr,
        args: &[A],
        variables: &[(&str, &str)],
    ) -> Outcome<Self> {
        let mut command = pinned(cores, program, args);
        command.envs(variables.iter().copied());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child })
    }

    /// Starts a part of this program, and gets the address that it prints.
    pub(crate) fn part(cores: &Cores, args: &[String]) -> Outcome<(Self, SocketAddr)> {
        let program = std::env::current_exe()?;
        let mut child =
            pinned(cores, program.as_os_str(), args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take();
        let process = Self { child };
        let mut line = String::new();
        BufReader::new(output.ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("{args:?} did not start: {line:?}"))?;
        Ok((process, address))
    }

    /// Runs a part of this program to its end, and gets what it prints.
    pub(crate) fn answer(cores: &Cores, gives_way: bool, args: &[String]) -> Outcome<Vec<u8>> {
        let program = std::env::current_exe()?;
        let mut command = pinned(cores, program.as_os_str(), args);
        if gives_way {
            let mut nice = Command::new("nice");
            nice.args(["-n", "10"]).arg(command.get_program()).args(command.get_args());
            command = nice;
        }
        let output = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{args:?} failed").into());
        }
        Ok(output.stdout)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until somebody listens.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Outcome<()> {
        let until = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the process that should listen at {address} ended: {status}").into());
            }
            if Instant::now() > until {
                return Err(format!("nobody listens at {address}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pinned<A: AsRef<OsStr>>(cores: &Cores, program: &OsStr, args: &[A]) -> Command {
    // `taskset` becomes the program, so its process id is the program's.
    let mut command = Command::new("taskset");
    command.args(["-c", &cores.to_string()]).arg(program).args(args);
    command
}

/// A port of the loopback device that nobody has.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// For a part: ends this process when the one that started it is gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}
