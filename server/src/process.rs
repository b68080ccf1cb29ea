//! What the operating system knows about this process: for `mntr`, `envi` and `dirs`.

use std::env;
use std::fs;
use std::io;
use std::path::Path;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit, getuid};
use rustix::system::uname;

use crate::four_letter::report::EnvironmentReport;
use crate::version;

/// Numbers about the process; 0 where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// Descriptors in use.
    pub open_files: u64,
    /// Descriptors that it may have.
    pub open_files_max: u64,
    /// Page faults that had to read from a disk.
    pub major_faults: u64,
    /// Memory in use.
    pub resident_bytes: u64,
}

/// Asks for the numbers. It reads files below `/proc`, so it is not for a hot path.
pub fn report() -> ProcessReport {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    ProcessReport {
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        major_faults: major_faults(&stat).unwrap_or(0),
        resident_bytes: resident_pages(&statm).unwrap_or(0) * page_size() as u64,
    }
}

/// The field `majflt` of `/proc/PID/stat`. The second field, the name of the program, stands in
/// parentheses and may itself hold blanks and parentheses.
fn major_faults(stat: &str) -> Option<u64> {
    const AFTER_NAME: usize = 9;
    stat.rsplit_once(')')?.1.split_whitespace().nth(AFTER_NAME)?.parse().ok()
}

/// The second field of `/proc/PID/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

/// The environment, named as ZooKeeper names it where there is such a thing.
// Compat: Environment.list
pub fn environment() -> EnvironmentReport {
    let system = uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "<NA>".to_owned());
    let folder = env::current_dir().map(|path| path.display().to_string());
    EnvironmentReport(vec![
        ("zookeeper.version", version::FULL.to_owned()),
        ("host.name", text(system.nodename())),
        ("os.name", text(system.sysname())),
        ("os.arch", java_architecture(&text(system.machine())).to_owned()),
        ("os.version", text(system.release())),
        ("user.name", user_name().unwrap_or_else(|| "<NA>".to_owned())),
        ("user.home", variable("HOME")),
        ("user.dir", folder.unwrap_or_else(|_| "<NA>".to_owned())),
        ("ringkeeper.version", version::RINGKEEPER.to_owned()),
    ])
}

/// What Java calls a machine.
fn java_architecture(machine: &str) -> &str {
    if machine == "x86_64" { "amd64" } else { machine }
}

/// The name of the user whose process this is, as far as the local accounts tell.
fn user_name() -> Option<String> {
    user_in(&fs::read_to_string("/etc/passwd").ok()?, getuid().as_raw())
}

fn user_in(accounts: &str, id: u32) -> Option<String> {
    let fields = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?.to_owned(), fields.nth(1)?.parse::<u32>().ok()?);
        Some((name, number))
    };
    accounts.lines().filter_map(fields).find(|(_, number)| *number == id).map(|(name, _)| name)
}

/// Bytes of all files in and below `folder`. Files and directories in it that go while this looks
/// are left out.
// Compat: ZooKeeperServer.getDirSize
pub fn directory_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata().and_then(|metadata| {
            if metadata.is_dir() { directory_bytes(&entry.path()) } else { Ok(metadata.len()) }
        });
        match found {
            Ok(more) => bytes += more,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_does_not_move_the_fields() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 1000 0 42 0 5 6 0 0";
        assert_eq!(major_faults(stat), Some(42));
        assert_eq!(major_faults("77 (x) S 1"), None);
        assert_eq!(resident_pages("9 8 7"), Some(8));
    }

    #[test]
    fn the_user_is_found_by_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nbroken\nzk:x:77:7::/:/bin/false\n";
        assert_eq!(user_in(accounts, 77).as_deref(), Some("zk"));
        assert_eq!(user_in(accounts, 7), None);
        assert_eq!(java_architecture("x86_64"), "amd64");
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let report = report();
        assert!(report.open_files >= 3 && report.open_files_max >= report.open_files);
        assert!(report.resident_bytes > 0);
    }

    #[test]
    fn the_environment_begins_with_the_version() {
        let EnvironmentReport(lines) = environment();
        assert_eq!(lines[0], ("zookeeper.version", version::FULL.to_owned()));
        assert!(lines.iter().any(|(name, value)| *name == "os.name" && value == "Linux"));
    }
}
