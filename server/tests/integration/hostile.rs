//! Clients that err or mean harm: none of them costs anyone else a thing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use engine::error_code::ErrorCode;
use engine::ids::Xid;
use engine::op::OpCode;
use engine::records::ConnectRequest;
use tempfile::TempDir;

use super::client::{Client, PERSISTENT, new_node, new_session, path_watch, set_data};
use super::server::{DEADLINE, Server, Setup};

/// Whether the server closes a connection that begins with these bytes, without a word.
fn is_dropped(server: &Server, bytes: &[u8]) -> bool {
    let mut stream = server.stream();
    // The server may close before it has all of it.
    drop(stream.write_all(bytes));
    is_closed_without_a_word(stream)
}

fn is_closed_without_a_word(mut stream: TcpStream) -> bool {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

#[test]
fn garbage_closes_its_own_connection_only() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let mut bystander = server.client();
        let mut half = server.stream();
        half.write_all(&[0, 0, 1, 0, 5]).unwrap();
        for (what, bytes) in [
            ("a negative length", (-1_i32).to_be_bytes().to_vec()),
            ("the smallest length", i32::MIN.to_be_bytes().to_vec()),
            ("the largest length", i32::MAX.to_be_bytes().to_vec()),
            ("a length over the limit", 1_048_577_i32.to_be_bytes().to_vec()),
            ("an empty frame", frame(&[])),
            ("a short frame", frame(&[0; 10])),
            ("a password of a claimed length", frame(&[&[0; 24][..], &[0x7f; 4]].concat())),
            ("an unknown word", b"abcd".to_vec()),
            ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ] {
            assert!(is_dropped(&server, &bytes), "{what}");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let body: Vec<u8> = (0..random.usize(0..60)).map(|_| random.u8(..)).collect();
            let mut stream = server.stream();
            drop(stream.write_all(&frame(&body)));
        }
        assert_eq!(bystander.create("/alive", b"", PERSISTENT).err, 0);
        assert!(bystander.data("/alive").is_ok());
    }
}

#[test]
fn garbage_in_a_session_closes_its_connection_or_is_an_error() {
    let (server, _folder) = Server::fresh("io_uring", 2);
    let mut bystander = server.client();
    for bytes in [frame(&[]), frame(&[0; 7]), i32::MAX.to_be_bytes().to_vec()] {
        let mut client = server.client();
        client.send_bytes(&bytes);
        assert!(client.is_closed());
    }
    let mut client = server.client();
    for op in [OpCode::Create, OpCode::Multi, OpCode::SetData, OpCode::GetData, OpCode::Sync] {
        let reply = client.call(op, |writer| writer.bytes(&[0x7f, 0xff, 0xff, 0xff, 0]));
        assert_eq!(reply.err, ErrorCode::MarshallingError.to_wire(), "{op:?}");
    }
    client.put_as(Xid(77), 4711, |_| {});
    client.flush();
    let reply = client.receive();
    let unimplemented = ErrorCode::Unimplemented.to_wire();
    assert_eq!((reply.xid, reply.err, reply.zxid), (Xid(77), unimplemented, -1));
    assert_eq!(bystander.create("/alive", b"", PERSISTENT).err, 0);
}

#[test]
fn packets_over_the_limit_close_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new("epoll", 1, folder.path()).with("jute.maxbuffer=1024");
    let server = setup.start();
    let mut client = server.client();
    assert_eq!(client.create("/small", &[1; 800], PERSISTENT).err, 0);
    client.put(OpCode::Create, |writer| new_node("/big", &[1; 1_024], PERSISTENT).write(writer));
    client.try_flush();
    assert!(client.is_closed());
    assert_eq!(server.client().exists("/big", false).err, ErrorCode::NoNode.to_wire());
}

#[test]
fn words_are_answered_as_the_whitelist_says() {
    let (server, _folder) = Server::fresh("io_uring", 2);
    assert!(server.word("srvr").contains("Mode: standalone\n"));
    let refused = "ruok is not executed because it is not in the whitelist.\n";
    assert_eq!(server.word("ruok"), refused);
    for (backend, cores) in [("io_uring", 3), ("epoll", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(backend, cores, folder.path());
        let server = setup.with("4lw.commands.whitelist=ruok,mntr,stat").start();
        let mut client = server.client();
        assert_eq!(client.create("/a", b"12345", PERSISTENT).err, 0);
        assert_eq!(server.word("ruok"), "imok");
        assert_eq!(server.word("ruok\n"), "imok");
        assert!(server.word("stat").contains("Clients:\n /127.0.0.1:"));
        assert!(server.word("conf").starts_with("conf is not executed"));
        // Five are always there.
        assert_eq!(server.metric("zk_znode_count"), 6);
        assert_eq!(server.metric("zk_outstanding_requests"), 0);
        let mut stream = server.stream();
        for byte in b"ruok" {
            stream.write_all(&[*byte]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "imok");
    }
}

#[test]
fn words_reset_statistics_on_all_cores() {
    for (backend, cores) in [("io_uring", 3), ("epoll", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(backend, cores, folder.path());
        let server = setup.with("4lw.commands.whitelist=*").start();
        // Each new connection goes to the core with the fewest.
        let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.create(&format!("/{number}"), b"", PERSISTENT).err, 0);
        }
        let counts = ["zk_cnt_updatelatency", "zk_cnt_sync_processor_batch_size"];
        assert_eq!(server.metric(counts[0]), 3);
        assert_ne!(server.metric(counts[1]), 0);
        assert_eq!(server.word("srst"), "Server stats reset.\n");
        assert_eq!(counts.map(|name| server.metric(name)), [0, 0]);
        // A session and a znode each; who asks is no longer watched by a selector.
        let received = |stat: &str, count| {
            stat.matches(&format!("[1](queued=0,recved={count},sent={count})\n")).count()
        };
        let stat = server.word("stat");
        assert_eq!(received(&stat, 2), 3, "{stat}");
        assert!(stat.contains("[0](queued=0,recved=1,sent=0)\n"), "{stat}");
        assert_eq!(server.word("crst"), "Connection stats reset.\n");
        let stat = server.word("stat");
        assert_eq!(received(&stat, 0), 3, "{stat}");
    }
}

#[test]
fn large_values_and_small_ones_go_side_by_side() {
    const LARGE: usize = 1_000_000;
    for (backend, cores) in [("io_uring", 2), ("epoll", 2)] {
        let (server, _folder) = Server::fresh(backend, cores);
        let mut large = server.client();
        let mut small = server.client();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..8 {
                    let value = vec![number; LARGE];
                    let path = format!("/large{number}");
                    assert_eq!(large.create(&path, &value, PERSISTENT).err, 0);
                }
            });
            for number in 0..200_u8 {
                let path = format!("/small{number}");
                assert_eq!(small.create(&path, &[number], PERSISTENT).err, 0);
            }
        });
        // All are asked for before the first is read: more than the sockets can hold.
        for number in 0..24 {
            let path = format!("/large{}", number % 8);
            small.put(OpCode::GetData, |writer| path_watch(&path, false).write(writer));
        }
        small.flush();
        for number in 0..200_u8 {
            assert_eq!(large.data(&format!("/small{number}")), Ok(vec![number]));
        }
        for number in 0..24 {
            let reply = small.receive();
            assert_eq!(reply.err, 0);
            assert!(reply.body[4..4 + LARGE].iter().all(|byte| *byte == number % 8));
        }
        pipeline_large_reads(&mut small);
    }
}

#[test]
fn a_connection_that_is_not_read_ends_with_its_session() {
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::new(backend, cores, folder.path());
        let setup = setup.with("tickTime=100").with("4lw.commands.whitelist=mntr");
        let server = setup.with("nio.sessionlessCnxnTimeout=500").start();
        // Long enough for a busy machine to take the large write.
        let request = ConnectRequest { timeout_ms: 2_000, ..new_session() };
        let mut client = Client::connect(server.address, &request).unwrap();
        assert_eq!(client.create("/large", &vec![0; 1_000_000], PERSISTENT).err, 0);
        for _ in 0..24 {
            client.put(OpCode::GetData, |writer| path_watch("/large", false).write(writer));
        }
        client.flush();
        // The one that asks is left.
        let deadline = Instant::now() + DEADLINE;
        while server.metric("zk_num_alive_connections") > 1 {
            assert!(Instant::now() < deadline, "the connection is never closed");
        }
        assert!(client.is_closed());
    }
}

#[test]
fn connections_that_ask_for_no_session_are_closed_in_time_and_counted() {
    const TIMEOUT_MS: u64 = 500;
    for (backend, cores) in [("io_uring", 2), ("epoll", 1)] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, cores, folder.path()).with("4lw.commands.whitelist=mntr");
        let server = setup.with(&format!("nio.sessionlessCnxnTimeout={TIMEOUT_MS}")).start();
        let mut bystander = server.client();
        let began = Instant::now();
        let silent = server.stream();
        let mut half = server.stream();
        let mut request = Vec::new();
        new_session().write(&mut request);
        half.write_all(&request[..request.len() / 2]).unwrap();
        for stream in [silent, half] {
            assert!(is_closed_without_a_word(stream));
            assert!(began.elapsed() >= Duration::from_millis(TIMEOUT_MS), "before its time");
        }
        assert_eq!(server.metric("zk_sessionless_connections_expired"), 2);
        assert_eq!(bystander.create("/alive", b"", PERSISTENT).err, 0, "it has a session");
    }
}

/// Reads whose replies fill the output stand between writes, and all are on their way at once.
fn pipeline_large_reads(client: &mut Client) {
    for value in 0..4 {
        client.put(OpCode::SetData, |writer| set_data("/small0", &[value]).write(writer));
        for number in 0..4 {
            let path = format!("/large{number}");
            client.put(OpCode::GetData, |writer| path_watch(&path, false).write(writer));
        }
        client.put(OpCode::GetData, |writer| path_watch("/small0", false).write(writer));
    }
    client.flush();
    for value in 0..4 {
        let replies: Vec<_> = (0..6).map(|_| client.receive()).collect();
        assert!(replies.iter().all(|reply| reply.err == 0));
        assert_eq!(replies[5].body[4], value, "a read sees its session's writes before it only");
    }
}

#[test]
fn clients_do_not_get_the_descriptors_that_the_server_needs() {
    for backend in ["io_uring", "epoll"] {
        let folder = TempDir::new().unwrap();
        let setup = Setup::new(backend, 1, folder.path()).with("maxClientCnxns=0");
        let mut server = setup.with("snapCount=100").under("ulimit -n 120").start();
        let mut client = server.client();
        let crowd: Vec<_> = (0..150).map(|_| server.stream()).collect();
        let refused = server.wait_for("connection refused");
        assert!(refused.contains("raise it (ulimit -n)"), "{refused}");
        for number in 0..250 {
            assert_eq!(client.create(&format!("/{number}"), b"", PERSISTENT).err, 0);
        }
        server.wait_for("snapshot written");
        drop(crowd);
        server.terminate();
    }
}

#[test]
fn a_telnet_that_is_interrupted_is_answered_as_a_word() {
    let (server, _folder) = Server::fresh("epoll", 1);
    let mut stream = server.stream();
    stream.write_all(&[0xff, 0xf4, 0xff, 0xfd]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let expect = "telnet close is not executed because it is not in the whitelist.";
    assert_eq!(answer.trim_end(), expect);
}
