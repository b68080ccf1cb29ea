//! Ordinary use through an existing client library.

use std::future::Future;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error, EventType, LockOptions,
    LockPrefix, MultiWriteError, MultiWriteResult,
};

use super::server::{DEADLINE, Server};

const PERSISTENT: CreateOptions<'_> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const EPHEMERAL: CreateOptions<'_> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());

/// Runs `test` with a client that is connected to a fresh server, on both back ends.
fn check<F: Future<Output = ()>>(test: impl Fn(Client, String) -> F) {
    let runtime = Runtime::new().unwrap();
    for (backend, cores) in [("io_uring", 2), ("epoll", 3)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let address = server.address.to_string();
        runtime.block_on(async {
            let run = async {
                let client = Client::connect(&address).await.unwrap();
                test(client, address.clone()).await;
            };
            timeout(DEADLINE, run).await.unwrap();
        });
    }
}

#[test]
fn znodes_are_made_read_changed_and_deleted() {
    check(|client, _| async move {
        let (created, _) = client.create("/a", b"one", &PERSISTENT).await.unwrap();
        assert_eq!(client.get_data("/a").await.unwrap(), (b"one".to_vec(), created));
        let again = client.create("/a", b"", &PERSISTENT).await;
        assert_eq!(again.unwrap_err(), Error::NodeExists);
        let changed = client.set_data("/a", b"three", Some(0)).await.unwrap();
        assert_eq!((changed.version, changed.data_length), (1, 5));
        assert!(changed.mzxid > created.mzxid && changed.czxid == created.czxid);
        assert_eq!(client.set_data("/a", b"", Some(0)).await.unwrap_err(), Error::BadVersion);
        assert_eq!(client.check_stat("/a").await.unwrap(), Some(changed));
        client.create("/a/x", b"", &PERSISTENT).await.unwrap();
        client.create("/a/y", b"", &PERSISTENT).await.unwrap();
        let (mut names, stat) = client.get_children("/a").await.unwrap();
        names.sort_unstable();
        assert_eq!((names, stat.num_children, stat.cversion), (vec!["x".into(), "y".into()], 2, 2));
        assert_eq!(client.delete("/a", None).await.unwrap_err(), Error::NotEmpty);
        client.delete("/a/x", Some(0)).await.unwrap();
        client.delete("/a/y", None).await.unwrap();
        client.delete("/a", None).await.unwrap();
        assert_eq!(client.check_stat("/a").await.unwrap(), None);
        assert_eq!(client.get_data("/a").await.unwrap_err(), Error::NoNode);
    });
}

#[test]
fn sequential_znodes_are_numbered_and_ephemerals_go_with_their_session() {
    check(|client, address| async move {
        client.create("/queue", b"", &PERSISTENT).await.unwrap();
        let mode = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let other = Client::connect(&address).await.unwrap();
        for number in 0..5 {
            let (_, sequence) = other.create("/queue/n-", b"", &mode).await.unwrap();
            assert_eq!(sequence.to_string(), format!("{number:010}"));
        }
        let mut ephemerals = other.list_ephemerals("/").await.unwrap();
        ephemerals.sort_unstable();
        assert_eq!(ephemerals.len(), 5);
        assert_eq!(ephemerals[4], "/queue/n-0000000004");
        let owner = client.check_stat(&ephemerals[0]).await.unwrap().unwrap().ephemeral_owner;
        assert_ne!(owner, 0);
        let (_, watcher) = client.check_and_watch_stat(&ephemerals[4]).await.unwrap();
        drop(other);
        assert_eq!(watcher.changed().await.event_type, EventType::NodeDeleted);
        assert_eq!(client.list_children("/queue").await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_multi_is_all_or_nothing() {
    check(|client, _| async move {
        client.create("/a", b"", &PERSISTENT).await.unwrap();
        let mut writer = client.new_multi_writer();
        writer.add_check_version("/a", 0).unwrap();
        writer.add_create("/a/b", b"1", &PERSISTENT).unwrap();
        writer.add_set_data("/a", b"2", Some(0)).unwrap();
        writer.add_delete("/a/b", Some(0)).unwrap();
        let results = writer.commit().await.unwrap();
        assert!(matches!(results[1], MultiWriteResult::Create { ref path, .. } if path == "/a/b"));
        assert_eq!(results.len(), 4);
        let mut writer = client.new_multi_writer();
        writer.add_create("/a/c", b"1", &PERSISTENT).unwrap();
        writer.add_set_data("/a", b"3", Some(0)).unwrap();
        let failed = writer.commit().await.unwrap_err();
        let expected = MultiWriteError::OperationFailed { index: 1, source: Error::BadVersion };
        assert_eq!(failed, expected);
        assert_eq!(client.check_stat("/a/c").await.unwrap(), None);
        assert_eq!(client.get_data("/a").await.unwrap().0, b"2");
    });
}

#[test]
fn watches_tell_clients_on_any_core() {
    check(|client, address| async move {
        let writer = Client::connect(&address).await.unwrap();
        let (stat, created) = client.check_and_watch_stat("/a").await.unwrap();
        assert_eq!(stat, None);
        let mut below = client.watch("/a", AddWatchMode::PersistentRecursive).await.unwrap();
        writer.create("/a", b"1", &PERSISTENT).await.unwrap();
        let event = created.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeCreated, "/a"));
        let (data, _, changed) = client.get_and_watch_data("/a").await.unwrap();
        assert_eq!(data, b"1", "what an event tells of is there to be read");
        let (_, _, children) = client.get_and_watch_children("/a").await.unwrap();
        writer.set_data("/a", b"2", None).await.unwrap();
        writer.create("/a/b", b"", &EPHEMERAL).await.unwrap();
        writer.delete("/a/b", None).await.unwrap();
        let event = changed.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeDataChanged, "/a"));
        let event = children.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeChildrenChanged, "/a"));
        for (kind, path) in [
            (EventType::NodeCreated, "/a"),
            (EventType::NodeDataChanged, "/a"),
            (EventType::NodeCreated, "/a/b"),
            (EventType::NodeDeleted, "/a/b"),
        ] {
            let event = below.changed().await;
            assert_eq!((event.event_type, &*event.path), (kind, path));
        }
    });
}

#[test]
fn a_lock_is_held_by_one_client_at_a_time() {
    check(|client, address| async move {
        let lock = async |client: Client| {
            let prefix = LockPrefix::new_curator("/locks", "lock-").unwrap();
            let options = LockOptions::new(Acls::anyone_all());
            let options = options.with_ancestor_options(PERSISTENT).unwrap();
            let held = client.lock(prefix, b"", options).await.unwrap();
            held.create("/held", b"", &EPHEMERAL).await.expect("nobody else holds the lock");
            held.delete("/held", None).await.unwrap();
        };
        let others = [Client::connect(&address).await, Client::connect(&address).await];
        let [second, third] = others.map(Result::unwrap);
        tokio::join!(lock(client), lock(second), lock(third));
    });
}
