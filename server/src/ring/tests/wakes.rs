//! Wake-ups from other threads, and files.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use engine::disk::AlignedBuf;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::harness::{Bed, Event, PATIENCE, on_both, pattern, small};

#[test]
fn a_wake_before_the_turn_keeps_it_from_waiting() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let waker = bed.ring.waker();
        waker.wake();
        waker.clone().wake();
        bed.until("the wake-up", |record| record.has(&Event::Wake));
        bed.settle();
        assert_eq!(bed.record.events, [Event::Wake]);
    });
}

#[test]
fn a_turn_that_must_not_wait_hears_what_has_come() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (_answered, first) = bed.client();
        let mut client = TcpStream::connect(bed.address).unwrap();
        bed.until("the accept", |record| !record.accepted.is_empty());
        let socket = bed.record.accepted.pop_front().unwrap();
        let other_end = socket.try_clone().unwrap();
        let second = bed.ring.adopt(socket).unwrap();
        bed.settle();
        client.write_all(b"ping").unwrap();
        bed.send(first, b"answer");
        poll(&mut [PollFd::new(&other_end, PollFlags::IN)], None).unwrap();
        let turns = bed.record.turns;
        bed.ring.turn(Some(Duration::ZERO), &mut bed.record).unwrap();
        assert_eq!(bed.record.received(second), b"ping");
        assert_eq!(bed.record.turns, turns + 1, "a turn begins once");
    });
}

#[test]
fn no_message_of_many_threads_is_left_lying() {
    const THREADS: usize = 4;
    const MESSAGES: usize = 20_000;
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (outbox, inbox) = mpsc::channel();
        let senders: Vec<_> = (0..THREADS)
            .map(|_| {
                let (outbox, waker) = (outbox.clone(), bed.ring.waker());
                thread::spawn(move || {
                    for _ in 0..MESSAGES {
                        outbox.send(()).unwrap();
                        waker.wake();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < THREADS * MESSAGES {
            let start = Instant::now();
            // Nothing but a wake-up ends this wait in time.
            bed.ring.turn(Some(PATIENCE), &mut bed.record).unwrap();
            assert!(start.elapsed() < PATIENCE, "{seen} messages seen, the rest is left lying");
            if !bed.record.events.is_empty() {
                bed.record.events.clear();
                seen += inbox.try_iter().count();
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn two_rings_wake_each_other_back_and_forth() {
    const ROUNDS: usize = 10_000;
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let ours = bed.ring.waker();
        let (handshake, theirs) = mpsc::channel();
        let (to_peer, from_us) = mpsc::channel();
        let (to_us, from_peer) = mpsc::channel();
        let peer = thread::spawn(move || {
            let mut bed = Bed::new(backend, &small());
            handshake.send(bed.ring.waker()).unwrap();
            let mut echoed = 0;
            while echoed < ROUNDS {
                bed.ring.turn(Some(PATIENCE), &mut bed.record).unwrap();
                for number in from_us.try_iter() {
                    assert_eq!(number, echoed);
                    to_us.send(number).unwrap();
                    ours.wake();
                    echoed += 1;
                }
            }
        });
        let theirs = theirs.recv().unwrap();
        let start = Instant::now();
        for number in 0..ROUNDS {
            to_peer.send(number).unwrap();
            theirs.wake();
            while from_peer.try_recv() != Ok(number) {
                assert!(start.elapsed() < PATIENCE, "stuck in round {number}");
                bed.ring.turn(Some(PATIENCE), &mut bed.record).unwrap();
            }
        }
        peer.join().unwrap();
    });
}

#[test]
fn files_are_written_where_they_were_told() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let folder = std::env::temp_dir();
        let path = folder.join(format!("ring-test-{backend:?}-{}", std::process::id()));
        let file = Arc::new(File::create(&path).unwrap());
        for token in [7, 8] {
            let mut buffer = AlignedBuf::with_capacity(4096);
            buffer.extend_from_slice(&pattern(100));
            buffer.as_mut_slice()[0] = token as u8;
            bed.ring.submit_write(Arc::clone(&file), token * 4096, buffer, token);
        }
        bed.until("both writes", |record| {
            [7, 8].iter().all(|token| record.has(&Event::Written(*token, 100, Ok(()))))
        });
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 8 * 4096 + 100);
        assert_eq!((bytes[7 * 4096], bytes[8 * 4096]), (7, 8));
        assert_eq!(bytes[8 * 4096 + 1..], pattern(100)[1..]);
    });
}

#[test]
fn a_file_that_takes_no_more_and_a_wrong_one_are_reported() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let buffer = || {
            let mut buffer = AlignedBuf::with_capacity(4096);
            buffer.extend_from_slice(&[0; 4096]);
            buffer
        };
        let full = memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&full, SealFlags::GROW).unwrap();
        let read_only = Arc::new(File::open("/dev/null").unwrap());
        bed.ring.submit_write(Arc::new(File::from(full)), 0, buffer(), 1);
        bed.ring.submit_write(read_only, 0, buffer(), 2);
        let is_end = |event: &&Event| matches!(event, Event::Written(..));
        bed.until("both ends", |record| record.events.iter().filter(is_end).count() == 2);
        let refused = Event::Written(1, 4096, Err(ErrorKind::PermissionDenied));
        assert!(bed.record.has(&refused), "{:?}", bed.record.events);
        assert!(!bed.record.has(&Event::Written(2, 4096, Ok(()))));
    });
}
