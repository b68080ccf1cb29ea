//! Servers that this program starts itself, from templates: a command line and a config file.
//!
//! A template's `{words}` are replaced: `{directory}`, `{config}`, `{port}`, those of an ensemble
//! (see [`crate::ensemble`]), and what the plan and the command line set. A started server lives in
//! a directory of its own and is killed when it is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::client::Client;
use crate::ports::Ports;

/// Pause between two attempts to get a session from a server that is starting.
const PROBE_PAUSE: Duration = Duration::from_micros(500);
/// How long a server may take to stop when asked.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long the first probe waits for an answer,
const PROBE_WAIT_MIN: Duration = Duration::from_millis(50);
/// and how long the later ones do.
const PROBE_WAIT_MAX: Duration = Duration::from_millis(500);

/// How a server is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What it is called in reports.
    pub name: String,
    /// Program and arguments, with placeholders.
    pub command: Vec<String>,
    /// Contents of the file that `{config}` names, with placeholders.
    #[serde(default)]
    pub config: String,
    /// Further files of a server, with placeholders, by their paths in its directory.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// How many servers it is made of: an ensemble, if more than one.
    #[serde(default = "alone")]
    pub servers: usize,
    /// Seconds that it may take to serve.
    #[serde(default = "default_ready_s")]
    pub ready_s: f64,
}

fn alone() -> usize {
    1
}

fn default_ready_s() -> f64 {
    60.0
}

/// What placeholders stand for.
pub type Variables = BTreeMap<String, String>;

/// A directory of its own in `parent`, removed when dropped.
pub fn scratch_in(parent: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("ringkeeper-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write in {}", parent.display()))
}

/// A server that runs, or has been killed and can be started again on the same data.
#[derive(Debug)]
pub struct Server {
    template: Template,
    variables: Variables,
    directory: PathBuf,
    child: Option<Child>,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Server {
    /// Prepares a server in a directory, which may hold its data already. Starts nothing.
    pub fn prepare(
        template: &Template,
        variables: &Variables,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        Self::prepare_member(template, variables, directory, &Ports::find(1)?, 1, 0)
    }

    /// Prepares one of several servers, the first of which vote, and whose ports are these.
    pub fn prepare_member(
        template: &Template,
        variables: &Variables,
        directory: &Path,
        ports: &[Ports],
        voters: usize,
        index: usize,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let mut variables = variables.clone();
        Ports::name(ports, voters, index, &mut variables);
        let config = directory.join("server.cfg");
        variables.insert("directory".into(), directory.display().to_string());
        variables.insert("config".into(), config.display().to_string());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[index].client));
        let server =
            Self { template: template.clone(), variables, directory, child: None, address };
        fs::write(&config, fill_in(&template.config, &server.variables)?)?;
        server.write_files()?;
        Ok(server)
    }

    fn write_files(&self) -> anyhow::Result<()> {
        for (path, text) in &self.template.files {
            let path = self.directory.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, fill_in(text, &self.variables)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes all that it has written but its log, as if its disk had been changed for a new one.
    pub fn wipe(&self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.template.name);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        self.write_files()?;
        // What is removed is freed at the next commit of the file system's journal, seconds later,
        // and holds up the syncs of those who are measured then.
        Ok(rustix::fs::syncfs(File::open(&self.directory)?)?)
    }

    /// Starts the process.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.template.name);
        let words: Result<Vec<_>, _> =
            self.template.command.iter().map(|word| fill_in(word, &self.variables)).collect();
        let words = words?;
        let (program, arguments) = words.split_first().context("a server's command is empty")?;
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until a session is given and a read answered; how long that took.
    pub fn wait_serving(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let mut wait = PROBE_WAIT_MIN;
        loop {
            let probed = Instant::now();
            if Client::probe(self.address, wait).is_ok() {
                return Ok(begin.elapsed());
            }
            // ZooKeeper may leave a connection without answer and open that came while it loaded
            // its data: a probe must give up soon, but not be too hasty for a busy machine.
            if probed.elapsed() >= wait {
                wait = (wait * 2).min(PROBE_WAIT_MAX);
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended with {status}:\n{}", self.template.name, self.log_tail());
            }
            if begin.elapsed().as_secs_f64() > self.template.ready_s {
                let (name, log) = (&self.template.name, self.log_tail());
                bail!("{name} does not serve after {} s:\n{log}", self.template.ready_s);
            }
            thread::sleep(PROBE_PAUSE);
        }
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kill -9; returns when the process is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Freezes the process: it keeps its sockets and says nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref();
        let child = child.with_context(|| format!("{} does not run", self.template.name))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Asks the process to end, and kills it if it does not.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let pid = Pid::from_child(child);
        // It may have ended by itself.
        kill_process(pid, Signal::TERM).unwrap_or_default();
        let begin = Instant::now();
        while begin.elapsed() < STOP_WAIT {
            if child.try_wait()?.is_some() {
                self.child = None;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }

    /// Makes the kernel forget the contents of the server's files.
    pub fn drop_page_cache(&self) -> anyhow::Result<()> {
        rustix::fs::sync();
        drop_files(&self.directory)?;
        // Only root may do this; without it, directories and inodes stay cached.
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap_or_default();
        Ok(())
    }

    /// Bytes that it has logged so far.
    pub fn log_bytes(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |file| file.len())
    }

    /// What it has logged from some byte on.
    pub fn log_from(&self, start: u64) -> anyhow::Result<String> {
        let mut file = File::open(self.log())?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may be gone already; there is nobody left to tell.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}

fn drop_files(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_files(&entry.path())?;
        } else if let Ok(file) = File::open(entry.path()) {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Replaces `{word}` by what it stands for; a word that stands for nothing is an error.
fn fill_in(text: &str, variables: &Variables) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, after) = after.split_once('}').context("a { without a }")?;
        let value = variables
            .get(word)
            .with_context(|| format!("{{{word}}} is not set: give --set {word}=..."))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_and_unknown_ones_named() {
        let variables = Variables::from([("port".to_owned(), "7".to_owned())]);
        assert_eq!(fill_in("a={port},{port}", &variables).unwrap(), "a=7,7");
        let error = fill_in("{jars}/*", &variables).unwrap_err();
        assert!(error.to_string().contains("--set jars="));
        assert!(fill_in("{port", &variables).is_err());
    }
}
