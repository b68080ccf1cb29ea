//! What root makes for a service belongs to the service's user. Only root can make it so: for
//! anybody else there is nothing to see here.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use super::{KEPT, LOG_1, SNAPSHOT_0, put, report, tool};

/// Nobody's, for all that is known.
const SERVICE: (u32, u32) = (41_234, 41_235);

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("NO_SKIPS").is_none(), "it is to be looked at, by root");
        eprintln!("skipped: only root may give files to others");
    }
    is_root
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn give(path: &Path) {
    chown(path, Some(SERVICE.0), Some(SERVICE.1)).unwrap();
}

/// Everything at `path` and below is the service's.
#[track_caller]
fn check_given(path: &Path) {
    assert_eq!(owner(path), SERVICE, "{}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            check_given(&entry.unwrap().path());
        }
    }
}

#[test]
fn import_and_export_leave_the_data_with_the_user_whose_it_was() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (data, logs) = (directory.path().join("data"), directory.path().join("logs"));
    put(&data, &[("snapshot.0", SNAPSHOT_0)]);
    put(&logs, &[("log.1", LOG_1)]);
    give(&data.join("version-2"));
    let option = ["--data-log-dir", logs.to_str().unwrap()];
    report(&tool("import", &data, &option));
    for made in ["ringkeeper", "version-2"] {
        check_given(&data.join(made));
        check_given(&logs.join(made));
    }
    assert_eq!(owner(&data.join(KEPT).join("snapshot.0")), (0, 0), "what was there is left alone");
    report(&tool("export", &data, &[&option[..], &["--in-place"]].concat()));
    check_given(&data.join("version-2"));
    check_given(&logs.join("version-2"));
}

#[test]
fn what_is_made_in_a_users_directory_is_the_users_and_links_are_not_followed() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    put(&path("data"), &[("snapshot.0", SNAPSHOT_0), ("log.1", LOG_1)]);
    report(&tool("import", &path("data"), &[]));
    assert_eq!(owner(&path("data/ringkeeper")), (0, 0), "root's was root's");
    fs::write(path("data/myid"), "7").unwrap();
    fs::write(path("secret"), "root's").unwrap();
    for name in ["backup", "export"] {
        fs::create_dir_all(path(name)).unwrap();
        give(&path(name));
        let to = path(name).join("made/for/it");
        report(&tool(name, &path("data"), &["--to", to.to_str().unwrap()]));
        check_given(&path(name));
    }
    // What is left of an unfinished backup is given, too; what a link in it leads to is not.
    let made = path("backup/made/for/it/ringkeeper");
    fs::write(made.join("importing"), b"").unwrap();
    symlink(path("secret"), made.join("link")).unwrap();
    report(&tool("backup", &path("data"), &["--to", made.parent().unwrap().to_str().unwrap()]));
    assert_eq!(owner(&made.join("link")), SERVICE);
    assert_eq!(owner(&path("secret")), (0, 0));
}
