//! Bytes both ways, and every way in which they end.

use std::io::Read as _;
use std::net::Shutdown;
use std::time::Duration;

use engine::ids::LinkId;
use engine::zab::link::{LinkOp, Plane};

use super::harness::{Bed, Told, at, connect, listen, on_both, pattern, read_to_end, reset, write};

#[test]
fn links_that_others_open_have_odd_numbers_that_rise() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let accepted: Vec<_> = (0..3).map(|_| bed.accepted()).collect();
        let links: Vec<_> = accepted.iter().map(|(_, link)| link.0).collect();
        assert_eq!(links, [1, 3, 5]);
    });
}

#[test]
fn what_was_half_sent_is_told_before_the_end() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (stream, link) = bed.accepted();
        write(&stream, b"half of a mess");
        drop(stream);
        bed.until_told(&Told::Closed(link));
        let half = Told::Received(link, b"half of a mess".to_vec());
        assert_eq!(bed.told, [half, Told::Closed(link)]);
        assert_eq!(bed.peers.links_count(), 0);
        bed.send(link, b"late");
        bed.execute(LinkOp::Close(link));
        bed.settle();
        assert_eq!(bed.told.len(), 2);
    });
}

#[test]
fn all_that_is_sent_arrives_however_slow_the_reader() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (mut stream, link) = bed.accepted();
        let all = pattern(24 << 20);
        for piece in all.chunks(1_000_000) {
            bed.send(link, piece);
        }
        bed.settle();
        assert_eq!(bed.told, []);
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; 24 << 20];
            for piece in read.chunks_mut(70_001) {
                stream.read_exact(piece).unwrap();
            }
            (stream, read)
        });
        bed.until_told(&Told::Drained(link));
        let (stream, read) = reader.join().unwrap();
        assert!(read == all, "the bytes differ");
        assert_eq!(bed.told, [Told::Drained(link)]);
        // And the other way, while nothing is asked for.
        let writer = std::thread::spawn(move || write(&stream, &pattern(8 << 20)));
        bed.told.clear();
        bed.until(
            "the bytes",
            |bed| matches!(&bed.told[..], [Told::Received(_, bytes), ..] if bytes.len() == 8 << 20),
        );
        assert_eq!(bed.told[0], Told::Received(link, pattern(8 << 20)));
        writer.join().unwrap();
    });
}

#[test]
fn what_comes_on_a_paused_link_waits_in_its_socket() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (stream, link) = bed.accepted();
        let (other, other_link) = bed.accepted();
        write(&stream, b"before");
        bed.until("the bytes", |bed| !bed.told.is_empty());
        bed.told.clear();
        bed.execute(LinkOp::Pause(link));
        write(&stream, b"mean");
        write(&stream, b"while");
        // It is the others' turn, and what is sent goes out.
        bed.send(link, b"answer");
        write(&other, b"something else");
        bed.until("both", |bed| bed.told.len() == 2);
        let both = [Told::Drained(link), Told::Received(other_link, b"something else".to_vec())];
        assert!(both.iter().all(|told| bed.told.contains(told)), "{:?}", bed.told);
        bed.settle();
        assert_eq!(bed.told.len(), 2);
        bed.told.clear();
        bed.execute(LinkOp::Resume(link));
        bed.until("the rest", |bed| !bed.told.is_empty());
        assert_eq!(bed.told, [Told::Received(link, b"meanwhile".to_vec())]);
    });
}

#[test]
fn a_link_that_is_closed_while_it_is_paused_is_read_to_its_end() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (stream, link) = bed.accepted();
        bed.execute(LinkOp::Pause(link));
        write(&stream, &pattern(64 << 10));
        bed.send(link, b"goodbye");
        bed.execute(LinkOp::Close(link));
        bed.settle();
        assert_eq!(read_to_end(&stream).unwrap(), b"goodbye");
        drop(stream);
        bed.until("the end", |bed| bed.peers.links_count() == 0);
        assert_eq!(bed.told, []);
    });
}

#[test]
fn a_member_that_reads_nothing_is_given_up_before_it_takes_all_memory() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (_stream, link) = bed.accepted();
        let piece = pattern(1 << 20);
        for _ in 0..80 {
            bed.send(link, &piece);
        }
        bed.until_told(&Told::Closed(link));
        assert_eq!(bed.peers.links_count(), 0);
    });
}

#[test]
fn a_link_that_is_closed_sends_what_was_sent_before() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (stream, link) = bed.accepted();
        let all = pattern(8 << 20);
        write(&stream, b"not read any more");
        bed.send(link, &all);
        bed.execute(LinkOp::Close(link));
        bed.send(link, b"too late");
        let reader = std::thread::spawn(move || read_to_end(&stream).unwrap());
        bed.until_links(0);
        assert!(reader.join().unwrap() == all, "the bytes differ");
        assert_eq!(bed.told, []);
    });
}

#[test]
fn a_closed_link_whose_peer_does_not_read_goes_after_a_few_seconds() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let ((stuck, first), (idle, second)) = (bed.accepted(), bed.accepted());
        bed.send(first, &pattern(24 << 20));
        bed.execute(LinkOp::Close(first));
        bed.execute(LinkOp::Close(second));
        bed.settle();
        bed.pass(Duration::from_millis(2_900));
        assert_eq!(bed.peers.links_count(), 2);
        bed.pass(Duration::from_millis(200));
        assert_eq!((bed.peers.links_count(), &bed.told[..]), (0, &[][..]));
        assert_eq!(read_to_end(&idle).unwrap(), b"");
        drop(stuck);
    });
}

#[test]
fn a_reset_is_told_once_whatever_is_under_way() {
    on_both(|backend| {
        for (sends, leaves) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut bed = Bed::new(backend, &[]);
            let (stream, link) = bed.accepted();
            if sends {
                bed.send(link, &pattern(24 << 20));
            }
            if leaves {
                bed.execute(LinkOp::Close(link));
            }
            bed.settle();
            reset(stream);
            bed.until_links(0);
            bed.settle();
            let expected = if leaves { vec![] } else { vec![Told::Reset(link)] };
            assert_eq!(bed.told, expected);
        }
    });
}

#[test]
fn a_reset_before_anything_was_looked_at_is_told_too() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        reset(connect(bed.election));
        let (stream, link) = bed.accepted();
        write(&stream, b"well");
        bed.until_told(&Told::Received(link, b"well".to_vec()));
    });
}

#[test]
fn a_connection_that_a_dying_server_has_not_accepted_is_reset() {
    on_both(|backend| {
        let (listener, address) = listen();
        let mut bed = Bed::new(backend, &[at(address)]);
        bed.dial(2);
        bed.until_told(&Told::Connected(LinkId(2)));
        bed.send(LinkId(2), b"hello");
        bed.until_told(&Told::Drained(LinkId(2)));
        drop(listener);
        bed.until_told(&Told::Reset(LinkId(2)));
        bed.until_links(0);
    });
}

#[test]
fn what_is_sent_to_a_dead_peer_does_not_hide_what_it_said_last() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (stream, link) = bed.accepted();
        write(&stream, b"last words");
        stream.shutdown(Shutdown::Both).unwrap();
        drop(stream);
        // The first is answered with a reset, the second fails.
        for _ in 0..2 {
            bed.send(link, b"hello?");
            bed.peers.flush();
        }
        bed.until_told(&Told::Closed(link));
        bed.told.retain(|told| *told != Told::Drained(link));
        assert_eq!(bed.told, [Told::Received(link, b"last words".to_vec()), Told::Closed(link)]);
    });
}

#[test]
fn after_a_close_in_the_middle_of_events_none_of_the_link_follows() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let ((one, first), (other, second)) = (bed.accepted(), bed.accepted());
        write(&one, b"one");
        write(&other, b"other");
        drop((one, other));
        let now = bed.now();
        bed.until("both", |bed| bed.peers.has_events() || !bed.told.is_empty());
        bed.told.clear();
        bed.peers.execute(now, LinkOp::Close(first));
        bed.peers.execute(now, LinkOp::Close(second));
        bed.until_links(0);
        assert_eq!(bed.told, []);
    });
}

#[test]
fn two_servers_talk() {
    on_both(|backend| {
        let mut server = Bed::new(backend, &[]);
        let mut client = Bed::new(backend, &[at(server.election)]);
        client.dial(2);
        // What is sent before there is a connection waits for it.
        client.send(LinkId(2), b"hello");
        client.until_told(&Told::Connected(LinkId(2)));
        client.until_told(&Told::Drained(LinkId(2)));
        server.until_told(&Told::Received(LinkId(1), b"hello".to_vec()));
        assert_eq!(server.told[0], Told::Accepted(LinkId(1), Plane::Election));
        server.send(LinkId(1), b"welcome");
        server.execute(LinkOp::Close(LinkId(1)));
        server.turn(Duration::ZERO);
        client.until_told(&Told::Closed(LinkId(2)));
        let welcome = Told::Received(LinkId(2), b"welcome".to_vec());
        assert_eq!(client.told[2..], [welcome, Told::Closed(LinkId(2))]);
        server.until_links(0);
    });
}

#[test]
fn a_listener_outlives_what_it_is_asked_by_strangers() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let (listener, _) = listen();
        drop(listener);
        let streams: Vec<_> = (0..50).map(|_| connect(bed.election)).collect();
        bed.until_links(50);
        drop(streams);
        bed.until_links(0);
        let closed = bed.told.iter().filter(|told| matches!(told, Told::Closed(_))).count();
        assert_eq!(closed, 50);
    });
}
