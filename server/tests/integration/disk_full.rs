//! A disk without room: writes that grow are refused, deletions are not, and room is found again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use engine::error_code::ErrorCode;
use tempfile::TempDir;

use super::client::PERSISTENT;
use super::server::{DEADLINE, Setup};
use super::skip;

/// The segment that is written, two ahead, and four in reserve.
const SEGMENTS: usize = 7;

/// A small file system; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// One of so many MiB, of which the first segments of the log take 112; none where this user
    /// may not mount.
    fn mount(megabytes: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={megabytes}m");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let mounted = command.output().is_ok_and(|output| output.status.success());
        if !mounted {
            skip("a small file system may not be mounted");
        }
        mounted.then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        let zeros = vec![0; 1 << 16];
        while file.write_all(&zeros).is_ok() {}
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

/// Waits until the log has its first segments: what is full then is not full by chance.
fn wait_for_segments(data: &Path) {
    let deadline = Instant::now() + DEADLINE;
    let is_segment = |name: &str| name.starts_with("log.");
    let count = || {
        let entries = fs::read_dir(data.join("ringkeeper/generation.1")).unwrap();
        entries
            .filter(|entry| is_segment(&entry.as_ref().unwrap().file_name().to_string_lossy()))
            .count()
    };
    while count() < SEGMENTS {
        assert!(Instant::now() < deadline, "the log has no segments");
    }
}

#[test]
fn a_full_disk_refuses_what_grows_until_there_is_room() {
    for backend in ["io_uring", "epoll"] {
        let Some(disk) = SmallDisk::mount(300) else { return };
        let data = disk.path().join("data");
        let setup = Setup::new(backend, 1, &data);
        let mut server = setup.start();
        let mut client = server.client();
        assert_eq!(client.create("/kept", b"12345", PERSISTENT).err, 0);
        assert_eq!(client.create("/deleted", b"", PERSISTENT).err, 0);
        wait_for_segments(&data);
        disk.fill();
        // The next segment is begun, and there is no room for another.
        let value = vec![1; 1_000_000];
        let refused =
            (0..100).find_map(|_| match client.create("/large", &value, PERSISTENT).err {
                0 => {
                    assert_eq!(client.delete("/large").err, 0);
                    None
                }
                error => Some(error),
            });
        let refusal = ErrorCode::SystemError.to_wire();
        assert_eq!(refused, Some(refusal));
        server.wait_for("disk is full");
        server.seen("snapshot failed");
        assert_eq!(client.set_data("/kept", b"123456").err, refusal);
        assert_eq!(client.set_data("/kept", b"123").err, 0, "it shrinks");
        assert_eq!(client.delete("/deleted").err, 0);
        assert_eq!(client.data("/kept"), Ok(b"123".to_vec()));
        let mut other = server.client();
        assert_eq!(other.exists("/kept", false).err, 0, "new sessions can make room");
        disk.make_room();
        client.create_until_accepted("/again", b"");
        assert_eq!(client.set_data("/kept", b"1234567").err, 0);
        server.terminate();
        let server = setup.start();
        let mut client = server.client();
        assert_eq!(client.data("/kept"), Ok(b"1234567".to_vec()));
        assert_eq!(client.exists("/deleted", false).err, ErrorCode::NoNode.to_wire());
        assert_eq!(client.exists("/again", false).err, 0);
    }
}

#[test]
fn clients_that_delete_make_room_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(200) else { return };
    let setup = Setup::new("epoll", 1, &disk.path().join("data"));
    let mut server = setup.start();
    let value = vec![1; 900_000];
    for round in 0..3 {
        let mut client = server.client();
        let mut created = 0;
        while client.create(&format!("/large{created}"), &value, PERSISTENT).err == 0 {
            created += 1;
            assert!(created < 300, "the disk has more room than it has");
        }
        assert!(created > 0);
        for number in 0..created {
            assert_eq!(client.delete(&format!("/large{number}")).err, 0);
        }
        client.create_until_accepted(&format!("/again{round}"), b"");
        if round == 1 {
            // What is left is enough to start from.
            server.killer()();
            server.wait();
            server = setup.start();
        }
    }
    let mut client = server.client();
    assert_eq!(client.children("/"), ["again0", "again1", "again2", "zookeeper"]);
}
