//! The learner port, opened and closed; ports that are taken.

use std::time::Duration;

use engine::zab::link::{LinkOp, Plane};

use super::harness::{Bed, PATIENCE, Told, connect, on_both, write};
use crate::peers::{Peers, Plan, bind, listen_addresses};

#[test]
fn the_learner_port_is_opened_closed_and_opened_again() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        assert_eq!(bed.peers.learner_addresses(), []);
        bed.execute(LinkOp::OpenLearnerPort);
        let address = bed.peers.learner_addresses()[0];
        bed.execute(LinkOp::OpenLearnerPort);
        assert_eq!(bed.peers.learner_addresses(), [address]);
        let stream = connect(address);
        bed.until("the accept", |bed| !bed.told.is_empty());
        let Told::Accepted(link, Plane::Learner) = bed.told[0] else { panic!("{:?}", bed.told) };

        bed.execute(LinkOp::CloseLearnerPort);
        let refused = std::net::TcpStream::connect_timeout(&address, PATIENCE);
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        write(&stream, b"still here");
        bed.until_told(&Told::Received(link, b"still here".to_vec()));

        // The link that is left, and those in TIME_WAIT, are no obstacle.
        let mut plan = bed.plan();
        plan.learner_addresses = vec![address];
        let mut again = Peers::new(plan, vec![]).unwrap();
        again.execute(bed.now(), LinkOp::OpenLearnerPort);
        assert_eq!(again.learner_addresses(), [address]);
    });
}

#[test]
fn a_learner_port_that_is_taken_is_tried_until_it_is_free() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let taken = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = taken[0].local_addr().unwrap();
        assert!(bind(&[address]).unwrap_err().to_string().starts_with(&address.to_string()));
        let mut plan = bed.plan();
        plan.learner_addresses = vec![address];
        bed.peers = Peers::new(plan, vec![]).unwrap();
        bed.execute(LinkOp::OpenLearnerPort);
        assert_eq!(bed.peers.learner_addresses(), []);
        bed.pass(Duration::from_millis(100));
        assert_eq!(bed.peers.learner_addresses(), []);
        drop(taken);
        bed.pass(Duration::from_millis(100));
        assert_eq!(bed.peers.learner_addresses(), [address]);
    });
}

#[test]
fn what_was_waiting_for_the_port_ends_with_its_wish() {
    on_both(|backend| {
        let mut bed = Bed::new(backend, &[]);
        let taken = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let plan = Plan { learner_addresses: vec![taken[0].local_addr().unwrap()], ..bed.plan() };
        bed.peers = Peers::new(plan, vec![]).unwrap();
        bed.execute(LinkOp::OpenLearnerPort);
        assert!(bed.peers.next_timeout().is_some());
        bed.execute(LinkOp::CloseLearnerPort);
        assert_eq!(bed.peers.next_timeout(), None);
    });
}

#[test]
fn all_addresses_of_the_machine_are_one_wildcard_for_each_port() {
    let addresses = ["127.0.0.1:7", "127.0.0.2:7", "127.0.0.1:8"].map(|at| at.parse().unwrap());
    assert_eq!(listen_addresses(addresses.to_vec(), false), addresses);
    let all = listen_addresses(addresses.to_vec(), true);
    assert_eq!(all.iter().map(std::net::SocketAddr::port).collect::<Vec<_>>(), [7, 8]);
    assert!(all.iter().all(|address| address.ip().is_unspecified()));
}
