//! Who dials whom, who closes, and what is sent when.

use super::*;
use crate::zab::hello::ANONYMOUS;
use crate::zab::link::Plane;

const ME: ServerId = ServerId(2);
const SMALLER: ServerId = ServerId(1);
const LARGER: ServerId = ServerId(3);
const OBSERVER: ServerId = ServerId(9);
/// Links that the other side has dialled.
const IN: LinkId = LinkId(1);
const IN_2: LinkId = LinkId(3);

struct World {
    links: Links,
    now: u64,
    out: Vec<LinkOp>,
    heard: Vec<Heard>,
}

impl World {
    fn new() -> Self {
        let members = [(SMALLER, true), (LARGER, true), (OBSERVER, false)];
        let timeout = Duration::from_secs(5);
        let links = Links::new(ME, "me:2", timeout, members.into_iter());
        Self { links, now: 0, out: Vec::new(), heard: Vec::new() }
    }

    fn now(&self) -> Instant {
        Instant::ZERO.after(Duration::from_millis(self.now))
    }

    fn event(&mut self, event: LinkEvent<'_>) -> &mut Self {
        self.links.on_event(self.now(), event, &mut self.heard, &mut self.out);
        self
    }

    fn begin_round(&mut self) -> &mut Self {
        self.links.begin_round(self.now(), &mut self.out);
        self
    }

    fn send(&mut self, id: ServerId, text: &str) -> &mut Self {
        self.links.send(self.now(), id, text.as_bytes().to_vec(), &mut self.out);
        self
    }

    /// Passes time, a timeout after the other.
    fn pass(&mut self, ms: u64) -> &mut Self {
        let end = self.now + ms;
        while let Some(at) = self.links.next_timeout().filter(|at| at.as_millis() <= end) {
            assert!(at >= self.now(), "a timeout that is not dealt with");
            self.now = at.as_millis();
            self.links.on_timeout(at, &mut self.out);
            self.now = at.as_nanos().div_ceil(1_000_000);
        }
        self.now = end;
        self
    }

    fn accept(&mut self, link: LinkId, id: ServerId) -> &mut Self {
        self.event(LinkEvent::Accepted { link, plane: Plane::Election });
        self.event(LinkEvent::Received(link, &Hello::encode(id, "it:2")))
    }

    /// What has been done since the last look, in short.
    #[track_caller]
    fn check(&mut self, expect: &[&str]) -> &mut Self {
        let brief = |op: LinkOp| match op {
            LinkOp::Dial { link, peer, .. } => format!("dial {peer} {}", link.0),
            LinkOp::Send { link, bytes } if bytes == Hello::encode(ME, "me:2") => {
                format!("hello {}", link.0)
            }
            LinkOp::Send { link, bytes } => {
                format!("send {} {}", link.0, String::from_utf8_lossy(&bytes))
            }
            LinkOp::Close(link) => format!("close {}", link.0),
            _ => unreachable!("only learners and leaders want that"),
        };
        let done: Vec<String> = self.out.drain(..).map(brief).collect();
        assert_eq!(done, expect);
        self
    }

    #[track_caller]
    fn check_heard(&mut self, expect: &[Heard]) -> &mut Self {
        assert_eq!(self.heard, expect);
        self.heard.clear();
        self
    }
}

fn refused(link: u64) -> LinkEvent<'static> {
    LinkEvent::Failed { link: LinkId(link), refused: true }
}

/// Both voters connected, by links 4 (dialled) and 1 (accepted).
fn connected() -> World {
    let mut world = World::new();
    world.begin_round().check(&["dial 1 4", "dial 3 8"]);
    world.event(LinkEvent::Connected(LinkId(4))).check(&["hello 4"]);
    world.event(LinkEvent::Connected(LinkId(8))).check(&["hello 8"]);
    world.check_heard(&[Heard::Up(SMALLER)]);
    world.event(LinkEvent::Closed(LinkId(8)));
    world.accept(IN, LARGER).check(&[]).check_heard(&[Heard::Up(LARGER)]);
    world
}

#[test]
fn a_smaller_id_is_dialled_and_a_larger_one_dials_back() {
    let mut world = connected();
    world.send(SMALLER, "a").check(&["send 4 a"]);
    world.send(LARGER, "b").check(&["send 1 b"]);
    // No connection is wanted to an observer before it asks for something.
    world.pass(60_000).check(&[]);
    assert_eq!(world.links.next_timeout(), None);
}

#[test]
fn a_smaller_id_that_dials_is_dialled_back() {
    let mut world = connected();
    world.pass(1000);
    // The one that we have may be dead without our knowing it.
    world.accept(IN_2, SMALLER).check(&["close 3", "close 4", "dial 1 12"]);
    world.accept(LinkId(5), SMALLER).check(&["close 5"]);
    world.event(LinkEvent::Connected(LinkId(12))).check(&["hello 12"]);
    // This hello has crossed ours.
    world.accept(LinkId(7), SMALLER).check(&["close 7"]);
    world.send(SMALLER, "a").check(&["send 12 a"]);
    // An observer with a smaller id is dialled back, too; one that is no member is not.
    world.accept(LinkId(9), ServerId(0)).check(&["close 9"]);
    world.accept(LinkId(11), ServerId(-5)).check(&["close 11"]);
    world.accept(LinkId(13), ME).check(&["close 13"]);
}

#[test]
fn a_larger_id_takes_over_from_its_older_link_and_from_our_dial() {
    let mut world = World::new();
    world.begin_round().check(&["dial 1 4", "dial 3 8"]);
    world.accept(IN, LARGER).check(&["close 8"]);
    world.accept(IN_2, LARGER).check(&["close 1"]);
    world.send(LARGER, "a").check(&["send 3 a"]);
    world.event(LinkEvent::Connected(LinkId(8))).check(&[]);
}

#[test]
fn the_newest_message_waits_for_the_link() {
    let mut world = World::new();
    world.send(LARGER, "a").check(&["dial 3 4"]);
    world.send(LARGER, "b").check(&[]);
    world.event(LinkEvent::Connected(LinkId(4))).check(&["hello 4"]);
    // It may be old by now: whoever hears of the connection has it sent, or a newer one.
    world.accept(IN, LARGER).check(&["close 4"]).check_heard(&[Heard::Up(LARGER)]);
    world.links.flush(LARGER, &mut world.out);
    world.check(&["send 1 b"]);
    // While a lot is on its way, one waits.
    let long = "x".repeat(UNSENT_BYTES_MAX);
    world.send(LARGER, &long).check(&[&format!("send 1 {long}")]);
    world.send(LARGER, "c").send(LARGER, "d").check(&[]);
    world.event(LinkEvent::Drained(IN)).check(&["send 1 d"]);
}

#[test]
fn refusals_count_in_the_round_of_their_dial() {
    let mut world = World::new();
    world.begin_round().check(&["dial 1 4", "dial 3 8"]);
    world.event(refused(4)).check(&[]).check_heard(&[Heard::Refused(SMALLER)]);
    assert!(world.links.refused(SMALLER) && !world.links.refused(LARGER));
    // The dial to 3 goes on; what it meets says nothing about this round.
    world.begin_round().check(&["dial 1 12"]);
    assert!(!world.links.refused(SMALLER));
    world.event(refused(8)).check(&["dial 3 16"]).check_heard(&[]);
    world.event(refused(16)).check_heard(&[Heard::Refused(LARGER)]);
    world.event(LinkEvent::Failed { link: LinkId(12), refused: false }).check_heard(&[]);
    assert!(!world.links.refused(SMALLER));
    // Who connects is there after all.
    world.accept(IN, LARGER);
    assert!(!world.links.refused(LARGER));
}

#[test]
fn a_larger_id_that_has_read_the_hello_has_time_to_dial_back_and_one_that_has_not_is_dying() {
    for (end, pause) in [(LinkEvent::Closed(LinkId(8)), 10), (LinkEvent::Reset(LinkId(8)), 1)] {
        let mut world = World::new();
        world.begin_round().check(&["dial 1 4", "dial 3 8"]);
        world.event(refused(4));
        world.event(LinkEvent::Connected(LinkId(8))).check(&["hello 8"]);
        world.event(end).pass(pause - 1).check(&[]);
        world.pass(1).check(&["dial 3 12"]);
        world.check_heard(&[Heard::Refused(SMALLER)]);
        world.event(refused(12)).check_heard(&[Heard::Refused(LARGER)]);
    }
}

#[test]
fn a_link_that_closes_is_dialled_at_once_then_less_and_less_often() {
    let mut world = connected();
    world.pass(2000);
    world.event(LinkEvent::Closed(LinkId(4))).check(&["dial 1 12"]);
    world.event(LinkEvent::Failed { link: LinkId(12), refused: true }).check(&[]);
    world.pass(49).check(&[]).pass(1).check(&["dial 1 16"]);
    world.event(LinkEvent::Failed { link: LinkId(16), refused: false }).check(&[]);
    world.pass(2).check(&["dial 1 20"]);
    // Connections that do not last make no difference.
    world.event(LinkEvent::Connected(LinkId(20))).check(&["hello 20"]);
    world.event(LinkEvent::Closed(LinkId(20))).check(&[]);
    world.pass(4).check(&["dial 1 24"]);
    let mut dials = 0;
    for _ in 0..20_000 {
        world.pass(1);
        for op in std::mem::take(&mut world.out) {
            if let LinkOp::Dial { link, .. } = op {
                dials += 1;
                world.event(LinkEvent::Failed { link, refused: false });
            }
        }
    }
    assert!((10..=12).contains(&dials), "{dials} dials");
    // A new round begins anew.
    world.begin_round();
    assert_eq!(world.out.len(), 1);
}

#[test]
fn a_dead_larger_id_is_dialled_again_when_no_dial_back_comes() {
    let mut world = connected();
    world.pass(2000);
    // Its listener still took the connection.
    world.event(LinkEvent::Closed(IN)).check(&["dial 3 12"]);
    world.event(LinkEvent::Connected(LinkId(12))).check(&["hello 12"]);
    world.event(LinkEvent::Closed(LinkId(12))).check(&[]);
    world.pass(9).check(&[]).pass(1).check(&["dial 3 16"]);
    // One that neither closes nor dials back is given up after a while.
    world.event(LinkEvent::Connected(LinkId(16))).check(&["hello 16"]);
    world.pass(4999).check(&[]).pass(1).check(&["close 16", "dial 3 20"]);
    // As is a dial without an answer.
    world.pass(5000).check(&["close 20"]);
    world.pass(4).check(&["dial 3 24"]);
}

#[test]
fn messages_come_in_pieces() {
    let mut world = connected();
    let mut bytes = Vec::new();
    for text in ["one", "two", ""] {
        bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    let messages =
        ["one", "two"].map(|text| Heard::Message(SMALLER, text.as_bytes().to_vec())).into_iter();
    let messages: Vec<_> = messages.collect();
    for byte in &bytes[..14] {
        world.event(LinkEvent::Received(LinkId(4), &[*byte])).check(&[]);
    }
    world.check_heard(&messages);
    // The third has no length that a message can have.
    world.event(LinkEvent::Received(LinkId(4), &bytes)).check_heard(&messages);
    world.check(&["close 4"]);
    world.event(LinkEvent::Received(LinkId(4), &bytes)).check_heard(&[]);
}

#[test]
fn no_message_is_too_long_and_no_length_allocates() {
    for length in [0, -1, i32::MIN, MESSAGE_BYTES_MAX as i32 + 1, i32::MAX] {
        let mut world = connected();
        world.event(LinkEvent::Received(IN, &length.to_be_bytes())).check(&["close 1"]);
        world.pass(10_000);
        let dialled = |op: &LinkOp| matches!(op, LinkOp::Dial { peer: LARGER, .. });
        assert!(world.out.iter().any(dialled));
    }
    let mut world = connected();
    let longest = MESSAGE_BYTES_MAX as i32;
    world.event(LinkEvent::Received(IN, &longest.to_be_bytes())).check(&[]);
    world.event(LinkEvent::Received(IN, &vec![7; MESSAGE_BYTES_MAX])).check(&[]);
    world.check_heard(&[Heard::Message(LARGER, vec![7; MESSAGE_BYTES_MAX])]);
}

#[test]
fn a_hello_in_pieces_is_one_and_what_comes_behind_it_counts() {
    let mut world = World::new();
    world.event(LinkEvent::Accepted { link: IN, plane: Plane::Election });
    let mut bytes = Hello::encode(LARGER, "it:2");
    bytes.extend_from_slice(&[0, 0, 0, 1, 42]);
    for byte in bytes {
        world.event(LinkEvent::Received(IN, &[byte])).check(&[]);
    }
    world.check_heard(&[Heard::Up(LARGER), Heard::Message(LARGER, vec![42])]);
    // One that is none closes; one that does not end is waited for as long as for a connection.
    world.event(LinkEvent::Accepted { link: IN_2, plane: Plane::Election });
    world.event(LinkEvent::Received(IN_2, &[0xff; 8])).check(&["close 3"]);
    world.event(LinkEvent::Accepted { link: LinkId(5), plane: Plane::Election });
    world.pass(4999).check(&[]).pass(1).check(&["close 5"]);
}

#[test]
fn strangers_are_heard_and_answered_but_not_dialled() {
    let mut world = World::new();
    let stranger = ServerId(77);
    world.accept(IN, stranger).check(&[]).check_heard(&[]);
    world.event(LinkEvent::Received(IN, &[0, 0, 0, 1, 42]));
    world.check_heard(&[Heard::Message(stranger, vec![42])]);
    let answer = |world: &mut World, id, text: &str| {
        world.links.answer(world.now(), id, text.as_bytes().to_vec(), &mut world.out);
    };
    answer(&mut world, stranger, "a");
    answer(&mut world, stranger, "a");
    answer(&mut world, stranger, "b");
    world.check(&["send 1 a", "send 1 b"]).pass(10);
    answer(&mut world, stranger, "b");
    world.check(&["send 1 b"]);
    world.event(LinkEvent::Closed(IN)).check(&[]);
    answer(&mut world, stranger, "c");
    world.check(&[]);

    // Observers without an id are told apart.
    world.accept(IN_2, ANONYMOUS).accept(LinkId(5), ANONYMOUS).check(&[]);
    world.event(LinkEvent::Received(LinkId(5), &[0, 0, 0, 1, 42]));
    world.check_heard(&[Heard::Message(ServerId(-2), vec![42])]);
    answer(&mut world, ServerId(-2), "d");
    world.check(&["send 5 d"]);
}

#[test]
fn connections_of_strangers_are_bounded() {
    let mut world = World::new();
    for link in 0..200 {
        world.event(LinkEvent::Accepted { link: LinkId(2 * link + 1), plane: Plane::Election });
    }
    assert_eq!((world.links.links.len(), world.out.len()), (GREETINGS_MAX, 200 - GREETINGS_MAX));
    world.check(
        &(0..136)
            .map(|n| format!("close {}", 2 * n + 1))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    let mut world = World::new();
    for link in 0..200 {
        world.accept(LinkId(2 * link + 1), ServerId(1000 + link as i64));
    }
    assert_eq!((world.links.links.len(), world.links.peers.len()), (64, 3 + STRANGERS_MAX));
}
