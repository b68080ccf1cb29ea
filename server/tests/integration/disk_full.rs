//! A disk without room: writes that grow are refused, deletions are not, and room is found again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use engine::error_code::ErrorCode;
use tempfile::TempDir;

use super::client::{Client, PERSISTENT};
use super::server::Setup;

/// Two segments of the log, the first one and the next, and something for the rest.
const DISK_BYTES: u64 = 200 << 20;

/// A small file system; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={DISK_BYTES}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let mounted = command.output().is_ok_and(|output| output.status.success());
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

/// Overwrites a large value until that is refused; what the refusal is.
fn write_until_refused(client: &mut Client, disk: &SmallDisk) -> i32 {
    let value = vec![1; 1_000_000];
    for number in 0..400 {
        disk.fill();
        // Each is new, so each is one that grows.
        let reply = client.create(&format!("/large{number}"), &value, PERSISTENT);
        if reply.err != 0 {
            return reply.err;
        }
        assert_eq!(client.delete(&format!("/large{number}")).err, 0);
    }
    panic!("the log has more room than its disk");
}

#[test]
fn a_full_disk_refuses_what_grows_until_there_is_room() {
    for backend in ["io_uring", "epoll"] {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("skipped: may not mount a small file system");
            return;
        };
        let data = disk.path().join("data");
        let setup = Setup::new(backend, 1, &data);
        let mut server = setup.start();
        let mut client = server.client();
        assert_eq!(client.create("/kept", b"12345", PERSISTENT).err, 0);
        assert_eq!(client.create("/deleted", b"", PERSISTENT).err, 0);
        let refusal = write_until_refused(&mut client, &disk);
        assert_eq!(refusal, ErrorCode::SystemError.to_wire());
        server.wait_for("disk is full");
        assert_eq!(client.set_data("/kept", b"123456").err, refusal);
        assert_eq!(client.set_data("/kept", b"123").err, 0, "it shrinks");
        assert_eq!(client.delete("/deleted").err, 0);
        assert_eq!(client.data("/kept"), Ok(b"123".to_vec()));
        let mut other = server.client();
        assert_eq!(other.exists("/kept", false).err, 0, "new sessions can make room");
        disk.make_room();
        while client.create("/again", b"", PERSISTENT).err == refusal {}
        assert_eq!(client.set_data("/kept", b"1234567").err, 0);
        server.terminate();
        let server = setup.start();
        let mut client = server.client();
        assert_eq!(client.data("/kept"), Ok(b"1234567".to_vec()));
        assert_eq!(client.exists("/deleted", false).err, ErrorCode::NoNode.to_wire());
        assert_eq!(client.exists("/again", false).err, 0);
    }
}
