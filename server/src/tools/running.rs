//! Whether a ZooKeeper is still at work on its data.
//!
//! One that is idle changes nothing for days, and what it writes afterwards would be lost. It
//! shows in two ways: it has its log open, from the first write behind a snapshot on; and it
//! listens for clients. The files of another user's process are hidden from all but root, and a
//! port may be said nowhere: so both are looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Listen;

/// What shows that somebody is at work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Sign {
    /// A process has a file open.
    #[error("process {pid} has {} open", path.display())]
    Open {
        /// The process.
        pid: u32,
        /// One of the files.
        path: PathBuf,
    },
    /// A port is taken.
    #[error(
        "somebody listens at {0}, where the configuration says that clients connect (if it is no \
         ZooKeeper with this data: -D clientPort=0 lets this pass)"
    )]
    Listens(SocketAddr),
}

/// Looks for somebody who uses files in `folders`, or serves clients where they connect.
pub(super) fn look<'a>(
    folders: impl Iterator<Item = &'a Path>,
    listen: Option<Listen>,
) -> Option<Sign> {
    user_of(&files_in(folders)).or_else(|| listen.and_then(taken))
}

/// A file, whatever it is called where somebody sees it: containers have names of their own.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn files_in<'a>(folders: impl Iterator<Item = &'a Path>) -> BTreeMap<Identity, PathBuf> {
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter_map(|path| Some((identity(&path)?, path))).collect()
}

/// Another process that has one of the files open. What cannot be looked at is passed over.
fn user_of(files: &BTreeMap<Identity, PathBuf>) -> Option<Sign> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { continue };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut open = open.flatten().filter_map(|file| identity(&file.path()));
        if let Some(path) = open.find_map(|identity| files.get(&identity)) {
            return Some(Sign::Open { pid, path: path.clone() });
        }
    }
    None
}

fn taken(Listen { host, port }: Listen) -> Option<Sign> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let hosts = host.map_or(any.to_vec(), |host| vec![host]);
    let mut addresses = hosts.into_iter().map(|host| SocketAddr::new(host, port));
    let is_taken = |address: &SocketAddr| {
        TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    addresses.find(is_taken).map(Sign::Listens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listener: &str, host: Option<&str>) {
        let listener = TcpListener::bind(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = host.map(|host| host.parse().unwrap());
        let look = |port| look(std::iter::empty(), Some(Listen { host, port }));
        assert!(matches!(look(port), Some(Sign::Listens(at)) if at.port() == port));
        assert_eq!(look(0), None, "any that is free");
        drop(listener);
        assert_eq!(look(port), None);
    }

    #[test]
    fn a_port_that_somebody_has_is_found_whichever_address_it_is_had_at() {
        check("127.0.0.1:0", Some("127.0.0.1"));
        check("127.0.0.1:0", None);
        check("0.0.0.0:0", Some("127.0.0.1"));
        check("0.0.0.0:0", None);
    }
}
