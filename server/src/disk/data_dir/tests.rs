//! What is made, found, refused and removed.

use super::*;

fn write(directory: &mut Directory, name: &str) {
    directory.create_zeroed(name, 4096).unwrap();
}

#[test]
fn a_first_start_makes_everything_and_a_second_finds_it() {
    let temporary = tempfile::tempdir().unwrap();
    let (data, log) = (temporary.path().join("a/b"), temporary.path().join("c"));
    let first = DataDir::open(&data, &log).unwrap();
    write(&mut first.logs().unwrap(), "log.1");
    assert!(matches!(DataDir::open(&data, &log), Err(DataDirError::Lock(_))));
    drop(first);
    let second = DataDir::open(&data, &log).unwrap();
    assert_eq!(second.generation(), 1);
    assert_eq!(second.logs().unwrap().list().unwrap(), ["log.1"]);
    assert!(second.snapshots().unwrap().list().unwrap().is_empty());
}

#[test]
fn an_import_that_begins_anew_empties_only_what_it_has_begun() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name| temporary.path().join(name);
    let other = DataDir::open(&path("other"), &path("log")).unwrap();
    write(&mut other.logs().unwrap(), "log.1");
    drop(other);
    assert!(NewData::begin(&path("data"), &path("log")).is_err());
    assert_eq!(mark(&path("data").join(DIRECTORY_NAME)).unwrap(), None, "nothing is begun");
    drop(NewData::begin(&path("data"), &path("data")).unwrap());
    assert!(NewData::begin(&path("data"), &path("log")).is_err());
    assert!(path("log").join("ringkeeper/generation.1/log.1").exists());
    for _ in ["first", "again"] {
        let begun = NewData::begin(&path("data"), &path("new")).unwrap();
        write(&mut begun.directories().unwrap().1, "log.1");
    }
    let mut begun = NewData::begin(&path("data"), &path("new")).unwrap();
    drop(begun.directories().unwrap());
    begun.commit().unwrap();
    begun.finish().unwrap();
    let served = DataDir::open(&path("data"), &path("new")).unwrap();
    assert_eq!(served.logs().unwrap().list().unwrap(), [""; 0]);
}

#[test]
fn a_log_in_use_by_another_server_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name| temporary.path().join(name);
    let first = DataDir::open(&path("a"), &path("log")).unwrap();
    let error = DataDir::open(&path("b"), &path("log")).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
    DataDir::open(&path("b"), &path("log")).unwrap();
}

#[test]
fn an_unfinished_generation_is_removed_and_an_old_one_too() {
    let temporary = tempfile::tempdir().unwrap();
    let open = || DataDir::open(temporary.path(), temporary.path()).unwrap();
    let data_dir = open();
    write(&mut data_dir.logs().unwrap(), "log.old");
    let (mut snapshots, _) = data_dir.prepare_next().unwrap();
    write(&mut snapshots, "log.unfinished");
    drop(data_dir);

    let mut data_dir = open();
    assert_eq!(data_dir.logs().unwrap().list().unwrap(), ["log.old"]);
    let (_, mut logs) = data_dir.prepare_next().unwrap();
    assert!(logs.list().unwrap().is_empty());
    write(&mut logs, "log.new");
    data_dir.switch_to_next().unwrap();
    drop(data_dir);

    let data_dir = open();
    assert_eq!(data_dir.generation(), 2);
    assert_eq!(data_dir.logs().unwrap().list().unwrap(), ["log.new"]);
    assert!(!temporary.path().join("ringkeeper/generation.1").exists());
}

#[test]
fn data_without_a_manifest_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let open = || DataDir::open(temporary.path(), temporary.path());
    let data_dir = open().unwrap();
    let root = temporary.path().join(DIRECTORY_NAME);
    write(&mut data_dir.logs().unwrap(), "log.1");
    drop(data_dir);
    std::fs::remove_file(root.join(MANIFEST_NAME)).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("which generation") && error.contains("manifest"), "{error}");
}

#[test]
fn stopped_data_is_found_and_kept_from_others() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    assert!(StoppedData::open(path, path).unwrap().is_none());
    assert!(!path.join(DIRECTORY_NAME).exists(), "nothing is made");
    let running = DataDir::open(path, path).unwrap();
    let error = StoppedData::open(path, path).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(running);
    let one = StoppedData::open(path, path).unwrap().unwrap();
    let other = StoppedData::open(path, path).unwrap().unwrap();
    drop(one);
    assert!(matches!(DataDir::open(path, path), Err(DataDirError::Lock(_))));
    drop(other);
    DataDir::open(path, path).unwrap();
}

#[test]
fn directories_are_the_same_whatever_leads_there() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name| temporary.path().join(name);
    assert!(is_same(&path("a"), &path("a")) && !is_same(&path("a"), &path("b")));
    std::fs::create_dir(path("a")).unwrap();
    std::os::unix::fs::symlink(path("a"), path("b")).unwrap();
    assert!(is_same(&path("a"), &path("b")) && !is_same(&path("a"), temporary.path()));
}

#[test]
fn a_missing_generation_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let open = || DataDir::open(temporary.path(), temporary.path());
    drop(open().unwrap());
    std::fs::remove_dir(temporary.path().join("ringkeeper/generation.1")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("generation.1"), "{error}");
}

#[test]
fn a_log_that_is_elsewhere_is_not_forgotten() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name| temporary.path().join(name);
    let open = |log| DataDir::open(&path("data"), &path(log));
    write(&mut open("log").unwrap().logs().unwrap(), "log.1");
    // No snapshot says that there were transactions.
    let error = open("data").unwrap_err().to_string();
    let log = path("log").canonicalize().unwrap().join(DIRECTORY_NAME);
    assert!(error.contains(&format!("is in {}: name that", log.display())), "{error}");
    assert!(StoppedData::open(&path("data"), &path("data")).is_err());
    // A disk that is mounted elsewhere.
    std::fs::rename(path("log"), path("moved")).unwrap();
    assert_eq!(open("moved").unwrap().logs().unwrap().list().unwrap(), ["log.1"]);
    let error = open("data").unwrap_err().to_string();
    assert!(error.contains("/moved/"), "{error}");
    // Both are one from now on.
    let ours = path("data").join(DIRECTORY_NAME);
    let from = path("moved").join(DIRECTORY_NAME).join("generation.1/log.1");
    std::fs::rename(from, ours.join("generation.1/log.1")).unwrap();
    std::fs::remove_file(ours.join(LOG_NOTE)).unwrap();
    assert_eq!(open("data").unwrap().logs().unwrap().list().unwrap(), ["log.1"]);
}

#[test]
fn where_the_log_of_a_first_start_was_to_be_binds_nobody() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name| temporary.path().join(name);
    let ours = path("data").join(DIRECTORY_NAME);
    let begin = || {
        drop(Directory::open(&ours).unwrap());
        std::fs::write(ours.join(LOG_NOTE), "/log").unwrap();
    };
    begin();
    drop(DataDir::open(&path("data"), &path("data")).unwrap());
    drop(DataDir::open(&path("data"), &path("data")).unwrap());
    std::fs::remove_dir_all(path("data")).unwrap();
    begin();
    let mut target = NewData::begin(&path("data"), &path("data")).unwrap();
    drop(target.directories().unwrap());
    target.commit().unwrap();
    target.finish().unwrap();
    drop(DataDir::open(&path("data"), &path("data")).unwrap());
}
