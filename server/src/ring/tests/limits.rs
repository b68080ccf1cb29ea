//! Where something runs out: buffers, descriptors, room to submit, patience.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::harness::{Bed, Event, on_both, on_both_with, pattern, small};
use crate::ring::{Backend, Config, Slot};

/// Clients that all talk at once, far more than there are buffers and submissions.
const CROWD: usize = 300;

#[test]
fn more_connections_than_buffers_and_submissions_are_all_served() {
    on_both_with(&small(), |backend, config| {
        let mut bed = Bed::new(backend, config);
        let mut clients: Vec<_> = (0..CROWD).map(|_| bed.client()).collect();
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            client.write_all(&pattern(100 + index)).unwrap();
        }
        let expected: usize = (0..CROWD).map(|index| 100 + index).sum();
        bed.until("all requests", |record| {
            record.received.values().map(Vec::len).sum::<usize>() == expected
        });
        for (index, (_, slot)) in clients.iter().enumerate() {
            assert_eq!(bed.record.received(*slot), pattern(100 + index));
            bed.send(*slot, &pattern(50 + index));
        }
        bed.until("all answers", |record| record.events.len() == CROWD);
        for (index, (client, slot)) in clients.iter_mut().enumerate() {
            let mut answer = vec![0; 50 + index];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, pattern(50 + index));
            bed.ring.close(*slot);
        }
        bed.until_connections(0);
    });
}

/// One connection with a large frame that comes in pieces must not hold up the others.
#[test]
fn a_slow_megabyte_among_thousands_of_connections_disturbs_nobody() {
    const OTHERS: usize = 2000;
    on_both(|backend| {
        let mut bed = Bed::new(backend, &Config::default());
        let (mut slow, slow_slot) = bed.client();
        let mut others: Vec<_> = (0..OTHERS).map(|_| bed.client()).collect();
        let frame = pattern(1 << 20);
        for piece in frame.chunks(frame.len() / 4) {
            // More than the sockets hold: it is the ring that makes room.
            let (first, rest) = piece.split_at(1000);
            slow.write_all(first).unwrap();
            for (client, _) in &mut others {
                client.write_all(b"ping").unwrap();
            }
            answer_all(&mut bed, &others);
            for (client, _) in &mut others {
                let mut answer = [0; 4];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"pong");
            }
            std::thread::scope(|scope| {
                scope.spawn(|| slow.write_all(rest).unwrap());
                let before = bed.record.received(slow_slot).len() - first.len();
                bed.until("the piece", |record| {
                    record.received(slow_slot).len() == before + piece.len()
                });
            });
        }
        assert!(bed.record.received(slow_slot) == frame, "the frame was damaged");
    });
}

fn answer_all(bed: &mut Bed, others: &[(TcpStream, Slot)]) {
    bed.until("the pings", |record| {
        others.iter().all(|(_, slot)| record.received(*slot) == b"ping")
    });
    for (_, slot) in others {
        bed.record.received.remove(slot);
        bed.send(*slot, b"pong");
    }
    bed.until("the pongs", |record| record.events.len() == others.len());
    bed.record.events.clear();
}

#[test]
fn a_paused_connection_delivers_what_was_on_its_way_and_no_more() {
    on_both_with(&small(), |backend, config| {
        let mut bed = Bed::new(backend, config);
        let (mut client, slot) = bed.client();
        bed.ring.pause_reading(slot);
        client.write_all(&pattern(100_000)).unwrap();
        bed.settle();
        let early = bed.record.received(slot).len();
        let bound = (config.receive_buffers * config.receive_buffer_bytes) as usize;
        assert!(early <= bound, "{early} bytes while paused");
        bed.settle();
        assert_eq!(bed.record.received(slot).len(), early);

        bed.ring.resume_reading(slot);
        bed.ring.pause_reading(slot);
        bed.ring.resume_reading(slot);
        bed.until("the rest", |record| record.received(slot).len() == 100_000);
        assert!(bed.record.received(slot) == pattern(100_000));
        bed.ring.pause_reading(slot);
        bed.ring.resume_reading(slot);
        client.write_all(b"and on").unwrap();
        bed.until("more", |record| record.received(slot).len() == 100_006);
    });
}

#[test]
fn a_turn_waits_as_long_as_it_was_told() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        bed.settle();
        let start = Instant::now();
        let mut turns = 0;
        while start.elapsed() < Duration::from_millis(30) {
            bed.ring.turn(Some(Duration::from_millis(30)), &mut bed.record).unwrap();
            turns += 1;
        }
        // A wait may be interrupted, but not by its own clock.
        assert!(turns <= 3, "{turns} turns for one wait");
        assert!(start.elapsed() < Duration::from_secs(10), "it waited for ever");
        assert_eq!(bed.record.events, []);
    });
}

#[test]
fn running_out_of_descriptors_pauses_accepting_until_there_are_some() {
    const CHILD: &str = "RINGKEEPER_TEST_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        on_both(exhaust_descriptors);
        return;
    }
    // The limit holds for a whole process, so this needs one of its own.
    let name = "ring::tests::limits::\
                running_out_of_descriptors_pauses_accepting_until_there_are_some";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{report}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{report}");
}

fn exhaust_descriptors(backend: Backend) {
    const CLIENTS: usize = 10;
    const LEFT: usize = 3;
    let mut bed = Bed::new(backend, &small());
    let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(bed.address).unwrap()).collect();
    let before = getrlimit(Resource::Nofile);
    let next = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
    let current = Some(next as u64 + LEFT as u64);
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();

    bed.until("the shortage", |record| !record.events.is_empty());
    assert_eq!(bed.record.accepted.len(), LEFT);
    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(250) {
        bed.ring.turn(Some(Duration::from_secs(1)), &mut bed.record).unwrap();
        turns += 1;
    }
    assert!(turns < 20, "{turns} turns while nothing can be accepted: it spins");
    assert_eq!(bed.record.accepted.len(), LEFT);
    assert_eq!(bed.record.events.len(), 1, "{:?}", bed.record.events);
    assert!(matches!(bed.record.events[0], Event::Paused(_)));

    setrlimit(Resource::Nofile, before).unwrap();
    bed.until("the others", |record| record.accepted.len() == CLIENTS);
    drop(clients);
}

#[test]
fn a_ring_can_be_dropped_with_everything_in_flight() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let clients: Vec<_> = (0..20).map(|_| bed.client()).collect();
        for (_, slot) in &clients {
            bed.send(*slot, &pattern(4 << 20));
        }
        bed.settle();
        for (_, slot) in &clients[..10] {
            bed.ring.pause_reading(*slot);
        }
        let address = bed.address;
        drop(bed);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for (mut client, _) in clients {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert!(pattern(4 << 20).starts_with(&rest));
        }
    });
}
