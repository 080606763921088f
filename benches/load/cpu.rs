//! What the operating system says of a process and of the machine (proc(5)).

use std::{fs, time::Duration};

use nix::{time::ClockId, unistd::Pid};
use serde::Serialize;

use crate::Outcome;

/// Where the weight of this session's processes against other sessions' stands, on kernels that group them (sched(7)).
const AUTOGROUP: &str = "/proc/self/autogroup";

/// While this lives, the processes of this session go before others, if the system lets them.
#[derive(Debug)]
pub(crate) struct First {
    before: Option<String>,
}

impl First {
    /// Other builds on the machine would otherwise take whole time slices out of the calls.
    pub(crate) fn claim() -> Self {
        let group = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let before = group.rsplit_once("nice ").map(|(_, nice)| nice.trim().to_owned());
        let claimed = fs::write(AUTOGROUP, "-15").is_ok();
        Self { before: before.filter(|_| claimed) }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}

/// User and system time of all threads so far, those that ended included. `/proc/PID/stat` has it in hundredths of a second,
/// which is several in a hundred of a short drive.
pub(crate) fn time(pid: u32) -> Outcome<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?))?;
    Ok(clock.now()?.into())
}

/// Resident memory in KiB: now (`VmRSS`), or at the most so far (`VmHWM`).
pub(crate) fn resident(pid: u32, which: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).ok_or("no such line in /proc/PID/status")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?)
}

/// The cores that this process may use.
pub(crate) fn cores() -> Outcome<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .ok_or("no Cpus_allowed_list in /proc/self/status")?;
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// Of the last minute, before the run: what else the machine did.
    load: String,
}

impl Machine {
    pub(crate) fn here() -> Outcome<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cpu: cpu.to_owned(),
            cores: cores()?.len(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} cores, Linux {}, load {} before the run", self.cpu, self.cores, self.kernel, self.load)
    }
}
