//! Connecting to members: to those that are there, that refuse, that are silent, that are unknown.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use engine::ids::LinkId;
use engine::zab::link::{LinkOp, Plane};

use super::harness::{Bed, PEER, Told, at, listen, nobody, on_both, read_to_end};
use crate::config::ensemble::PeerAddress;

const LINK: LinkId = LinkId(2);

/// A listener that answers no further attempt: its backlog is full.
fn silent() -> (TcpListener, SocketAddr, Vec<std::net::TcpStream>) {
    let listener = crate::ring::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        waiting.push(stream);
    }
    (listener, address, waiting)
}

/// Dials and returns how it ended, where no attempt succeeds; silent addresses are waited out.
fn failure(bed: &mut Bed) -> Told {
    bed.dial(LINK.0);
    for _ in 0..5 {
        bed.settle();
        bed.pass(Duration::from_secs(2));
    }
    bed.until("the failure", |bed| !bed.told.is_empty());
    assert_eq!(bed.peers.links_count(), 0);
    assert_eq!(bed.told.len(), 1, "{:?}", bed.told);
    bed.told.remove(0)
}

#[test]
fn only_if_every_address_refuses_a_dial_is_refused() {
    let (_listener, hangs, _waiting) = silent();
    on_both(|backend| {
        let unknown =
            PeerAddress { host: "name.invalid".to_owned(), quorum_port: 1, election_port: 2 };
        let check = |addresses: &[PeerAddress], refused| {
            let mut bed = Bed::new(backend, addresses);
            assert_eq!(failure(&mut bed), Told::Failed(LINK, refused), "{addresses:?}");
        };
        check(&[at(nobody())], true);
        check(&[at(nobody()), at(nobody())], true);
        check(&[at(hangs)], false);
        check(&[at(nobody()), at(hangs)], false);
        check(&[at(hangs), at(nobody())], false);
        check(&[unknown], false);
        check(&[], false);
    });
}

#[test]
fn a_silent_address_leaves_time_for_the_next_one() {
    let (_listener, hangs, _waiting) = silent();
    on_both(|backend| {
        let (listener, there) = listen();
        let mut bed = Bed::new(backend, &[at(hangs), at(nobody()), at(there)]);
        bed.dial(LINK.0);
        bed.settle();
        assert_eq!(bed.told, []);
        bed.pass(Duration::from_secs(2));
        bed.until_told(&Told::Connected(LINK));
        bed.send(LINK, b"hello");
        bed.until_told(&Told::Drained(LINK));
        bed.execute(LinkOp::Close(LINK));
        bed.turn(Duration::ZERO);
        assert_eq!(read_to_end(&listener.accept().unwrap().0).unwrap(), b"hello");
    });
}

#[test]
fn a_name_is_looked_up_beside_the_core() {
    on_both(|backend| {
        let (_listener, there) = listen();
        let by_name = PeerAddress { host: "localhost".to_owned(), ..at(there) };
        let mut bed = Bed::new(backend, &[by_name]);
        bed.dial(LINK.0);
        assert_eq!(bed.told, []);
        bed.until_told(&Told::Connected(LINK));
        assert_eq!(bed.told, [Told::Connected(LINK)]);
    });
}

#[test]
fn each_dial_goes_where_the_name_leads_by_then() {
    static ADDRESS: Mutex<Option<SocketAddr>> = Mutex::new(None);
    on_both(|backend| {
        let name = PeerAddress { host: "moves.invalid".to_owned(), ..at(nobody()) };
        let mut bed = Bed::new(backend, &[name]);
        bed.peers.resolver.look_up = |_| ADDRESS.lock().unwrap().into_iter().collect();
        for (link, place) in [(LinkId(2), "127.0.0.1:0"), (LinkId(4), "127.0.0.2:0")] {
            // Nobody listens any more where the name led before.
            let listener = TcpListener::bind(place).unwrap();
            *ADDRESS.lock().unwrap() = Some(listener.local_addr().unwrap());
            bed.dial(link.0);
            bed.until("an answer", |bed| !bed.told.is_empty());
            assert_eq!(bed.told, [Told::Connected(link)], "{place}");
            bed.execute(LinkOp::Close(link));
            bed.until_links(0);
            bed.told.clear();
        }
    });
}

#[test]
fn what_was_given_up_is_never_told_of() {
    let (_listener, hangs, _waiting) = silent();
    on_both(|backend| {
        let by_name = PeerAddress { host: "localhost".to_owned(), ..at(nobody()) };
        for address in [at(hangs), at(nobody()), by_name] {
            let mut bed = Bed::new(backend, &[address]);
            bed.dial(LINK.0);
            bed.execute(LinkOp::Close(LINK));
            assert_eq!(bed.peers.links_count(), 0);
            bed.settle();
            bed.pass(Duration::from_secs(10));
            // A second dial is answered, so an answer to the first would have come by now.
            bed.dial(4);
            bed.pass(Duration::from_secs(10));
            bed.until("the failure", |bed| !bed.told.is_empty());
            assert!(matches!(bed.told[..], [Told::Failed(LinkId(4), _)]), "{:?}", bed.told);
        }
    });
}

#[test]
fn the_plane_says_which_port() {
    on_both(|backend| {
        let ((_one, election), (other, learner)) = (listen(), listen());
        let address = PeerAddress { quorum_port: learner.port(), ..at(election) };
        let mut bed = Bed::new(backend, &[address]);
        drop(other);
        bed.dial(2);
        bed.until_told(&Told::Connected(LinkId(2)));
        bed.execute(LinkOp::Dial { link: LinkId(4), peer: PEER, plane: Plane::Learner });
        bed.until_told(&Told::Failed(LinkId(4), true));
    });
}

#[test]
fn a_thousand_dials_leave_nothing_behind() {
    on_both(|backend| {
        let (listener, there) = listen();
        let mut bed = Bed::new(backend, &[at(there)]);
        for number in 1..=500 {
            let link = LinkId(2 * number);
            bed.dial(link.0);
            bed.until_told(&Told::Connected(link));
            let (stream, _) = listener.accept().unwrap();
            bed.execute(LinkOp::Close(link));
            bed.turn(Duration::ZERO);
            // Our end is closed: there would be no end to read otherwise.
            assert_eq!(read_to_end(&stream).unwrap(), b"");
            drop(stream);
            bed.until_links(0);
            bed.told.clear();
        }
        drop(listener);
        for number in 501..=1000 {
            let link = LinkId(2 * number);
            bed.dial(link.0);
            bed.until_told(&Told::Failed(link, true));
            bed.told.clear();
        }
        assert_eq!(bed.peers.links_count(), 0);
    });
}

#[test]
fn what_is_sent_for_elections_must_be_acknowledged_in_time() {
    let limit_ms = |bed: &Bed, link| {
        let socket = bed.peers.links[&link].socket.as_ref().unwrap();
        rustix::net::sockopt::tcp_user_timeout(socket).unwrap()
    };
    on_both(|backend| {
        let (_listener, there) = listen();
        let mut bed = Bed::new(backend, &[at(there)]);
        let (_stream, accepted) = bed.accepted();
        for (link, plane) in [(LINK, Plane::Election), (LinkId(4), Plane::Learner)] {
            bed.execute(LinkOp::Dial { link, peer: PEER, plane });
            bed.until("the link", |bed| bed.told.contains(&Told::Connected(link)));
        }
        assert_eq!(limit_ms(&bed, accepted), 5_000, "as long as connecting may take");
        assert_eq!(limit_ms(&bed, LINK), 5_000);
        assert_eq!(limit_ms(&bed, LinkId(4)), 0, "learners may be slow");
    });
}
