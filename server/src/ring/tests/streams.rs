//! Bytes in, bytes out: order, pieces, back-pressure, ends of streams.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use super::harness::{Bed, Event, on_both, on_both_with, pattern, small};

#[test]
fn a_request_is_received_and_its_answer_sent() {
    on_both_with(&small(), |backend, config| {
        let mut bed = Bed::new(backend, config);
        let (mut client, slot) = bed.client();
        for round in 0..10u8 {
            client.write_all(&[round; 10]).unwrap();
            bed.until("the request", |record| record.received(slot).len() == 10);
            assert_eq!(bed.record.received.remove(&slot), Some(vec![round; 10]));
            bed.send(slot, &[round; 20]);
            let sent = Event::Sent(slot, vec![round; 20]);
            bed.until("the answer", |record| record.has(&sent));
            let mut answer = [0; 20];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [round; 20]);
            bed.record.events.clear();
        }
    });
}

#[test]
fn what_is_submitted_is_sent_before_a_turn_which_tells() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        bed.settle();
        bed.send(slot, b"answer");
        bed.ring.submit().unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        assert_eq!(bed.record.events, []);
        let sent = Event::Sent(slot, b"answer".to_vec());
        bed.until("the end of the send", |record| record.has(&sent));
        assert_eq!(bed.record.events, [sent]);
    });
}

#[test]
fn a_large_send_is_continued_and_its_buffer_comes_back_whole() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &small());
        let (mut client, slot) = bed.client();
        let bytes = pattern(16 << 20);
        let expected = bytes.clone();
        bed.ring.send(slot, bytes.clone()).unwrap();
        let reader = thread::spawn(move || {
            let mut read = vec![0; expected.len()];
            client.read_exact(&mut read).unwrap();
            assert!(read == expected, "bytes were lost or exchanged");
            client
        });
        let sent = Event::Sent(slot, bytes);
        bed.until("the end of the send", |record| record.has(&sent));
        reader.join().unwrap();
    });
}

#[test]
fn a_stream_through_few_small_buffers_arrives_whole() {
    on_both_with(&small(), |backend, config| {
        let mut bed = Bed::new(backend, config);
        let (mut client, slot) = bed.client();
        let bytes = pattern(1 << 20);
        let expected = bytes.clone();
        let writer = thread::spawn(move || {
            for piece in bytes.chunks(777) {
                client.write_all(piece).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            client
        });
        bed.until("the end", |record| record.has(&Event::Eof(slot)));
        writer.join().unwrap();
        assert!(bed.record.received(slot) == expected, "bytes were lost or exchanged");
    });
}
