//! What other members of an ensemble send, as far as it is decoded: votes and packets.

use engine::jute::DecodeError;
use engine::zab::hello::Hello;
use engine::zab::notification::Notification;
use engine::zab::packet::{
    self, ForwardedRequest, LearnerInfo, Packet, PacketKind, PacketReader, push_session,
    read_revalidated, read_sessions,
};
use engine::zxid::Epoch;

use super::input::Input;

/// No introduction is longer.
const STRANGER_BYTES_MAX: usize = 4096;
/// The longest part that is read at once.
const PART_BYTES_MAX: usize = 23;

/// The hello of a connection at the election port, and a message behind it.
pub(super) fn votes(input: &[u8]) {
    let mut input = Input(input);
    let hello = input.piece();
    if let Ok(Hello { bytes, .. }) = Hello::decode(hello) {
        assert_eq!(Hello::decode(&hello[..bytes]), Hello::decode(hello));
        let is_cut = |cut| matches!(Hello::decode(cut), Err(DecodeError::UnexpectedEnd { .. }));
        assert!((0..bytes).all(|len| is_cut(&hello[..len])), "a part is taken for the whole");
    }
    let Ok(notification) = Notification::decode(input.0) else { return };
    let Some(vote) = notification.vote() else { return };
    let message = Notification::message(notification.state, Some(&vote), vote.round, "");
    let again = Notification::decode(&message[4..]).expect("what was encoded can be decoded");
    assert_eq!((again.state, again.vote()), (notification.state, Some(vote)));
}

/// The bytes of a link at the learner port, of somebody known and of a stranger: whatever pieces
/// they come in, they are the same packets.
pub(super) fn packets(input: &[u8]) {
    let mut input = Input(input);
    let first = usize::from(input.u8());
    let mut reader = PacketReader::default();
    reader.stream.push(input.0);
    let mut packets = Vec::new();
    let end = take_all(&mut reader, &mut packets);
    packets.iter().for_each(bodies);
    let mut parts = Vec::new();
    while !input.is_empty() {
        parts.push(input.bytes(1 + (first + parts.len()) * 7 % PART_BYTES_MAX));
    }
    let mut reader = PacketReader::default();
    let mut again = Vec::new();
    let end_again = parts.iter().try_for_each(|part| {
        reader.stream.push(part);
        take_all(&mut reader, &mut again)
    });
    assert_eq!((&again, end_again), (&packets, end));
    stranger(&parts, &packets);
}

/// Little is kept of what somebody sends who has not introduced himself.
fn stranger(parts: &[&[u8]], packets: &[Packet]) {
    let mut reader = PacketReader::of_stranger();
    let mut taken = Vec::new();
    for part in parts {
        reader.stream.push(part);
        if taken.is_empty() {
            let Ok(introduction) = reader.take() else { return };
            match introduction {
                Some(packet) => taken.push(packet),
                None => {
                    assert!(reader.stream.rest().len() < STRANGER_BYTES_MAX);
                    continue;
                }
            }
            reader.on_introduced();
        }
        if take_all(&mut reader, &mut taken).is_err() {
            break;
        }
    }
    assert_eq!(taken, packets);
}

fn take_all(reader: &mut PacketReader, packets: &mut Vec<Packet>) -> Result<(), DecodeError> {
    while let Some(packet) = reader.take()? {
        packets.push(packet);
    }
    Ok(())
}

/// Whatever the packet may carry: what is read means the same when it is written again.
fn bodies(packet: &Packet) {
    let Packet { kind, zxid, data, ids } = packet;
    let mut bytes = Vec::new();
    packet::write(*kind, *zxid, Some(data), &mut bytes);
    assert_eq!(read_one(&bytes), Packet { ids: Vec::new(), ..packet.clone() });
    if let Ok(request) = ForwardedRequest::read(data) {
        let ForwardedRequest { session, xid, op, body } = request;
        let mut bytes = Vec::new();
        packet::write_request(session, xid, op, &data[body], ids, &mut bytes);
        let again = Packet { kind: PacketKind::Request, zxid: -1, ..packet.clone() };
        assert_eq!(read_one(&bytes), again);
    }
    if let Ok(info) = LearnerInfo::read(data) {
        let mut bytes = Vec::new();
        info.write(PacketKind::FollowerInfo, Epoch(1), &mut bytes);
        assert_eq!(LearnerInfo::read(&read_one(&bytes).data), Ok(info));
    }
    let mut sessions = Vec::new();
    read_sessions(data).for_each(|(session, ms)| push_session(session, ms, &mut sessions));
    assert_eq!(sessions, data[..data.len() / 12 * 12]);
    if let Ok((session, valid)) = read_revalidated(data) {
        let mut bytes = Vec::new();
        packet::write_revalidated(session, valid, &mut bytes);
        assert_eq!(read_revalidated(&read_one(&bytes).data), Ok((session, valid)));
    }
}

fn read_one(bytes: &[u8]) -> Packet {
    let mut reader = PacketReader::default();
    reader.stream.push(bytes);
    reader.take().expect("what was written is read").expect("all of it is there")
}
