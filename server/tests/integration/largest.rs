//! The largest requests that a server takes: at the limit, one byte beyond it, many at once, and
//! after a `kill -9`.

use std::thread;

use engine::error_code::ErrorCode;
use engine::op::OpCode;
use tempfile::TempDir;

use super::client::{
    Client, EPHEMERAL, PERSISTENT, PERSISTENT_SEQUENTIAL, new_node, path_watch, versioned,
};
use super::server::{Server, Setup};

/// Bytes of a creation's packet besides its path and its data.
fn overhead() -> usize {
    let mut body = Vec::new();
    new_node("", b"", PERSISTENT).write(&mut engine::jute::Writer::new(&mut body));
    8 + body.len()
}

/// Data that makes the packet of this creation as long as it may be.
fn largest_data(path: &str, packet_bytes: usize, fill: u8) -> Vec<u8> {
    vec![fill; packet_bytes - overhead() - path.len()]
}

/// Creates at the limit with the length in the data and in the path, and beyond it.
fn check_limit(server: &Server, limit: usize) {
    let mut client = server.client();
    let watch = client.call(OpCode::GetChildren, |writer| path_watch("/", true).write(writer));
    assert_eq!(watch.err, 0);
    let data = largest_data("/data", limit, 7);
    client.put(OpCode::Create, |writer| new_node("/data", &data, PERSISTENT).write(writer));
    client.flush();
    assert_eq!(client.receive().event().1, "/");
    assert_eq!(client.receive().err, 0);
    assert_eq!(client.data("/data"), Ok(data));
    let name = format!("/{}", "n".repeat(limit - overhead() - 1));
    assert_eq!(client.create(&name, b"", EPHEMERAL).err, 0);
    assert_eq!(client.exists(&name, true).err, 0);
    assert_eq!(client.create(&name, b"", PERSISTENT_SEQUENTIAL).err, 0);
    client.put(OpCode::Delete, |writer| versioned(&name).write(writer));
    client.flush();
    assert_eq!(client.receive().event().1, name);
    assert_eq!(client.receive().err, 0);
    for (path, more) in [("/beyond", 1), ("/far", 1_000)] {
        let mut client = server.client();
        let data = largest_data(path, limit + more, 7);
        client.put(OpCode::Create, |writer| new_node(path, &data, PERSISTENT).write(writer));
        client.try_flush();
        assert!(client.is_closed());
        assert_eq!(server.client().exists(path, false).err, ErrorCode::NoNode.to_wire());
    }
}

/// Many of the largest on their way on several connections.
fn create_many(server: &Server, writers: u8, each: u8, limit: usize) {
    thread::scope(|scope| {
        for writer in 0..writers {
            let mut client = server.client();
            scope.spawn(move || create_some(&mut client, writer, each, limit));
        }
    });
}

fn create_some(client: &mut Client, writer: u8, each: u8, limit: usize) {
    for number in 0..each {
        let path = format!("/many-{writer}-{number}");
        let data = largest_data(&path, limit, writer ^ number);
        client.put(OpCode::Create, |out| new_node(&path, &data, PERSISTENT).write(out));
        // A read between two writes has the log's machine freeze a version for it.
        client.put(OpCode::Exists, |out| path_watch(&path, true).write(out));
    }
    client.flush();
    for _ in 0..2 * each {
        assert_eq!(client.receive().err, 0);
    }
}

fn check_many(server: &Server, writers: u8, each: u8, limit: usize) {
    let mut client = server.client();
    for writer in 0..writers {
        for number in 0..each {
            let path = format!("/many-{writer}-{number}");
            let data = largest_data(&path, limit, writer ^ number);
            assert!(client.data(&path) == Ok(data), "{path} is not what was acknowledged");
        }
    }
}

fn check(setup: &Setup, limit: usize, writers: u8, each: u8) {
    let server = setup.start();
    check_limit(&server, limit);
    create_many(&server, writers, each, limit);
    server.killer()();
    drop(server.wait());
    let server = setup.start();
    assert_eq!(server.client().data("/data"), Ok(largest_data("/data", limit, 7)));
    check_many(&server, writers, each, limit);
    server.terminate();
}

#[test]
fn the_largest_packets_are_written_read_and_recovered() {
    for (backend, cores) in [("io_uring", 1), ("io_uring", 2), ("epoll", 1), ("epoll", 2)] {
        let folder = TempDir::new().unwrap();
        check(&Setup::new(backend, cores, folder.path()), 0xf_ffff, 4, 12);
    }
}

#[test]
fn small_limits_hold_too() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new("epoll", 2, folder.path()).with("jute.maxbuffer=1024");
    check(&setup, 1_024, 4, 60);
}

#[test]
fn packets_longer_than_a_usual_segment_of_the_log_are_written() {
    let limit = 70 << 20;
    for backend in ["io_uring", "epoll"] {
        let folder = TempDir::new().unwrap();
        // There is data of a server with shorter segments already.
        let setup = Setup::new(backend, 1, folder.path());
        assert_eq!(setup.start().client().create("/before", b"", PERSISTENT).err, 0);
        check(&setup.with(&format!("jute.maxbuffer={limit}")), limit, 1, 1);
    }
}
