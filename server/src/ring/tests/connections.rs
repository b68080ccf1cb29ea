//! Beginnings and ends of connections: accept, close in every state, reset, reuse.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::harness::{Bed, Event, PATIENCE, on_both, pattern, small};

/// Closing it resets the connection.
fn reset(client: TcpStream) {
    rustix::net::sockopt::set_socket_linger(client.as_fd(), Some(Duration::ZERO)).unwrap();
    drop(client);
}

#[test]
fn after_close_nothing_is_reported_and_the_slot_is_used_again() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        client.write_all(b"before").unwrap();
        bed.until("the bytes", |record| record.received(slot) == b"before");
        bed.record.received.clear();

        client.write_all(b"after").unwrap();
        bed.ring.close(slot);
        assert_eq!(bed.ring.send(slot, b"late".to_vec()), Err(b"late".to_vec()));
        bed.until_connections(0);
        assert!(!bed.record.mentions(slot), "{:?}", bed.record.events);

        let (mut next, next_slot) = bed.client();
        assert_eq!(next_slot.index(), slot.index());
        assert_ne!(next_slot.generation(), slot.generation());
        next.write_all(b"next").unwrap();
        bed.until("the bytes", |record| record.received(next_slot) == b"next");
        bed.ring.close(slot);
        bed.ring.pause_reading(slot);
        bed.ring.close_after_send(slot);
        next.write_all(b" one").unwrap();
        bed.until("more bytes", |record| record.received(next_slot) == b"next one");
        assert!(!bed.record.mentions(slot));
    });
}

#[test]
fn a_close_during_a_send_that_is_stuck_ends_it() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        bed.send(slot, &pattern(32 << 20));
        bed.settle();
        bed.ring.close(slot);
        bed.until_connections(0);
        assert!(!bed.record.mentions(slot));
        let mut rest = Vec::new();
        // The end of the stream or a reset: the ring had nothing unread.
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < 32 << 20);
        assert!(pattern(32 << 20).starts_with(&rest));
    });
}

#[test]
fn a_close_before_anything_was_submitted_is_clean() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        bed.send(slot, b"never or at once");
        bed.ring.close(slot);
        bed.until_connections(0);
        assert!(!bed.record.mentions(slot));
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
    });
}

#[test]
fn a_reset_is_reported_once_whatever_is_in_flight() {
    on_both(|backend| {
        for (is_sending, is_paused) in [(false, false), (true, false), (true, true)] {
            let mut bed = Bed::new(backend, &small());
            let (client, slot) = bed.client();
            bed.settle();
            if is_paused {
                bed.ring.pause_reading(slot);
                bed.settle();
            }
            if is_sending {
                bed.send(slot, &pattern(32 << 20));
                bed.settle();
            }
            reset(client);
            bed.until("the reset", |record| record.closed(slot).is_some());
            bed.until_connections(0);
            bed.settle();
            let kind = bed.record.closed(slot);
            assert!(
                matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
                "{kind:?}"
            );
            // The kernel tells one operation of the reset, and the other one that the stream ended.
            bed.record.events.retain(|event| *event != Event::Eof(slot));
            assert_eq!(bed.record.events.len(), 1, "{:?}", bed.record.events);
        }
    });
}

#[test]
fn a_send_after_a_reset_is_reported_as_closed_or_refused() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (client, slot) = bed.client();
        bed.ring.pause_reading(slot);
        bed.settle();
        reset(client);
        bed.send(slot, b"answer");
        bed.until("the reset", |record| record.closed(slot).is_some());
        assert_eq!(bed.record.events.len(), 1, "{:?}", bed.record.events);
        bed.until_connections(0);
    });
}

#[test]
fn a_peer_that_sends_no_more_still_gets_its_answer() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        bed.until("the end", |record| record.has(&Event::Eof(slot)));
        assert_eq!(bed.record.received(slot), b"request");
        bed.send(slot, b"answer");
        bed.ring.close_after_send(slot);
        bed.until_connections(0);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
        bed.settle();
        assert_eq!(bed.record.events, [Event::Eof(slot)]);
    });
}

#[test]
fn a_lingering_close_delivers_all_even_if_the_peer_sent_more() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        bed.ring.pause_reading(slot);
        bed.settle();
        // Unread input would turn a plain close into a reset that destroys the answer.
        client.write_all(&pattern(10_000)).unwrap();
        let answer = pattern(8 << 20);
        bed.send(slot, &answer);
        bed.ring.close_after_send(slot);
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            client.read_to_end(&mut read).unwrap();
            read
        });
        bed.until_connections(0);
        assert!(reader.join().unwrap() == answer, "the answer was cut");
        bed.settle();
        assert!(!bed.record.mentions(slot), "{:?}", bed.record.events);
    });
}

#[test]
fn a_peer_that_never_closes_is_closed_when_lingering_is_over() {
    on_both(|backend| {
        let config = super::super::Config { linger: Duration::from_millis(20), ..small() };
        let mut bed = Bed::new(backend, &config);
        let (_idle, idle_slot) = bed.client();
        let (_stuck, stuck_slot) = bed.client();
        bed.ring.close_after_send(idle_slot);
        bed.send(stuck_slot, &pattern(32 << 20));
        bed.ring.close_after_send(stuck_slot);
        bed.until_connections(0);
        assert_eq!(bed.record.events, []);
    });
}

#[test]
fn of_too_many_that_linger_the_first_is_closed_at_once() {
    on_both(|backend| {
        let config = super::super::Config { linger: PATIENCE, lingering_max: 2, ..small() };
        let mut bed = Bed::new(backend, &config);
        let mut clients: Vec<_> = (0..4).map(|_| bed.client()).collect();
        for (_, slot) in &clients {
            bed.ring.close_after_send(*slot);
        }
        bed.until_connections(2);
        // The last two still listen to what their clients say; the others are gone.
        bed.settle();
        assert_eq!(bed.ring.connections_count(), 2);
        for (client, _) in &mut clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        drop(clients);
        bed.until_connections(0);
        assert_eq!(bed.record.events, []);
    });
}

#[test]
fn those_that_have_gone_do_not_count_among_those_that_linger() {
    on_both(|backend| {
        let config = super::super::Config { linger: PATIENCE, lingering_max: 2, ..small() };
        let mut bed = Bed::new(backend, &config);
        let (mut slow, slot) = bed.client();
        let answer = pattern(8 << 20);
        bed.send(slot, &answer);
        bed.ring.close_after_send(slot);
        for _ in 0..3 {
            let (quick, slot) = bed.client();
            bed.ring.close_after_send(slot);
            drop(quick);
            bed.until_connections(1);
        }
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            slow.read_to_end(&mut read).unwrap();
            read
        });
        bed.until_connections(0);
        assert!(reader.join().unwrap() == answer, "the answer was cut");
    });
}

#[test]
fn a_listener_stops_and_its_port_is_free() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        assert!(crate::ring::bind(bed.address, 1).is_err(), "two servers share a port");
        let (_client, _slot) = bed.client();
        bed.ring.unlisten(bed.listener);
        bed.ring.unlisten(bed.listener);
        bed.settle();
        let again = crate::ring::bind(bed.address, 1).unwrap();
        bed.ring.listen(again).unwrap();
        let (mut client, slot) = bed.client();
        client.write_all(b"again").unwrap();
        bed.until("the bytes", |record| record.received(slot) == b"again");
    });
}
