//! The door: where a tool on the same machine asks a running server for its state.
//!
//! ```text
//!   tool ── connects to <dataDir>/ringkeeper/door ──> thread of the server
//!        ── "snapshot\n" ──>                          takes the published version
//!        <── "ok <zxid>\n", the bytes of a snapshot file ──
//! ```
//!
//! The version is the published one: every write that anybody was told of before the question is
//! in it. It is held while it is sent, so the server goes on meanwhile, and the cores do nothing
//! for it. The file ends with its superblock, so a copy that was cut off is none.
//!
//! Only the user of the server, and root, are answered: the data is not filtered by ACLs.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use engine::btree::Version;
use engine::snapshot::SnapshotWriter;
use engine::zxid::Zxid;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use crate::ring::ACCEPT_PAUSE;
use crate::threads;

/// The name of the socket in our directory.
pub const NAME: &str = "door";
/// The only question so far.
const QUESTION: &[u8] = b"snapshot\n";
/// The longest first line of an answer.
const LINE_BYTES_MAX: usize = 512;
/// How much is sent at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// A tool that asks or takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longer paths do not fit the address of a socket; they are reached through the directory.
const PATH_BYTES_MAX: usize = 100;

/// An open door. The socket goes when this is dropped.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
}

/// What tools are told about.
pub trait State: Send + 'static {
    /// The last version that clients were told of.
    fn published(&self) -> Version;
}

impl Door {
    /// Opens the door of the server whose directory this is, and answers on a thread of its own.
    pub fn open(directory: &Path, state: impl State) -> io::Result<Self> {
        let path = directory.join(NAME);
        // That of a server that was killed: the directory is locked, so nobody listens there.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = at(directory, UnixListener::bind)?;
        let door = Self { path };
        threads::start("door", move || answer_all(listener, state))?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next server removes what is left.
        drop(fs::remove_file(&self.path));
    }
}

/// Binds or connects, however long the path is.
fn at<T>(directory: &Path, open: impl Fn(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(NAME);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return open(path);
    }
    let directory = fs::File::open(directory)?;
    open(PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())))
}

fn answer_all(listener: UnixListener, state: impl State) {
    let mut is_short = false;
    for stream in listener.incoming() {
        match stream {
            Ok(mut stream) => {
                is_short = false;
                if let Err(error) = answer(&mut stream, &state) {
                    tracing::warn!("a tool that asked for a snapshot did not get all: {error}");
                }
            }
            // Descriptors or memory ran out: it fails again at once, and is said once.
            Err(error) => {
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!("no tool can ask for a snapshot for a while: {error}");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn answer(stream: &mut UnixStream, state: &impl State) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let user = socket_peercred(&*stream)?.uid;
    if user != geteuid() && !user.is_root() {
        return stream.write_all(b"error only the server's own user and root are answered\n");
    }
    let mut question = [0; QUESTION.len()];
    stream.read_exact(&mut question)?;
    if question != QUESTION {
        return stream.write_all(b"error the question is not understood\n");
    }
    let version = state.published();
    let zxid = version.zxid();
    tracing::info!(%zxid, "a tool takes a snapshot");
    stream.write_all(format!("ok {:x}\n", zxid.0).as_bytes())?;
    let mut writer = SnapshotWriter::new(version);
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    while {
        let more = writer.fill(&mut chunk, CHUNK_BYTES);
        stream.write_all(&chunk)?;
        chunk.clear();
        more
    } {}
    Ok(())
}

/// A snapshot on its way from a running server.
#[derive(Debug)]
pub struct Incoming {
    /// Its last transaction.
    pub zxid: Zxid,
    stream: UnixStream,
}

/// Asks the server that has this directory for a snapshot.
pub fn ask(directory: &Path) -> io::Result<Incoming> {
    let mut stream = at(directory, UnixStream::connect)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(QUESTION)?;
    let line = read_line(&mut stream)?;
    let zxid = line.strip_prefix("ok ").and_then(|zxid| u64::from_str_radix(zxid, 16).ok());
    let refused = || io::Error::other(format!("the server says: {line}"));
    Ok(Incoming { zxid: Zxid(zxid.ok_or_else(refused)?), stream })
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            _ if line.len() == LINE_BYTES_MAX => {
                return Err(io::Error::other("what answers there is no ringkeeper"));
            }
            byte => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::tree::{OwnerMode, Tree};

    struct Fixed(Version);

    impl State for Fixed {
        fn published(&self) -> Version {
            self.0.clone()
        }
    }

    fn version() -> Version {
        Tree::new(OwnerMode::Plain).freeze_at(Zxid(0x1_0000_0002))
    }

    #[track_caller]
    fn check_answers(directory: &Path) {
        let mut incoming = ask(directory).unwrap();
        assert_eq!(incoming.zxid, Zxid(0x1_0000_0002));
        let (mut got, mut expect) = (Vec::new(), Vec::new());
        incoming.read_to_end(&mut got).unwrap();
        while SnapshotWriter::new(version()).fill(&mut expect, usize::MAX) {}
        assert_eq!(got, expect);
    }

    #[test]
    fn whoever_asks_gets_the_published_version() {
        let directory = tempfile::tempdir().unwrap();
        let door = Door::open(directory.path(), Fixed(version())).unwrap();
        check_answers(directory.path());
        check_answers(directory.path());
        drop(door);
        assert!(!directory.path().join(NAME).exists());
        assert!(ask(directory.path()).is_err());
    }

    #[test]
    fn a_long_path_and_a_socket_that_was_left_are_no_hindrance() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join(NAME), b"left").unwrap();
        let _door = Door::open(&deep, Fixed(version())).unwrap();
        check_answers(&deep);
    }

    #[test]
    fn other_questions_are_refused_and_the_next_one_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let _door = Door::open(directory.path(), Fixed(version())).unwrap();
        let mut stream = UnixStream::connect(directory.path().join(NAME)).unwrap();
        stream.write_all(b"somethin\n").unwrap();
        assert_eq!(read_line(&mut stream).unwrap(), "error the question is not understood");
        drop(UnixStream::connect(directory.path().join(NAME)).unwrap());
        check_answers(directory.path());
    }
}
