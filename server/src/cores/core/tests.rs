//! What a core makes of its mailbox.

use engine::auth::AuthRules;
use engine::client_core;
use engine::ids::{SessionId, Xid};
use engine::op::OpCode;
use engine::order::{Item, Reply, ReplyKind, Segment, Service};
use engine::records::{ConnectRequest, PathWatch, RequestHeader, write_request};
use engine::rules::Rules;
use engine::session::TimeoutLimits;
use engine::tree::{Effects, OwnerMode, Tree};
use engine::zxid::Zxid;

use super::super::mailbox::Mailbox;
use super::super::mailbox::tests::shared;
use super::*;
use crate::ring::{Backend, Config};

const CORE: CoreId = CoreId(0);
const PEER: ConnectionId = ConnectionId { core: CORE, slot: 0, generation: 0 };

struct World {
    core: Core,
    tree: Tree,
    batches: u64,
}

impl World {
    /// A lone core, one client of which has a session.
    fn new() -> Self {
        let ring = Ring::new(Backend::Epoll, &Config::default()).unwrap();
        let mut tree = Tree::new(OwnerMode::Plain);
        let version = tree.freeze();
        let config = client_core::Config {
            rules: Rules::default(),
            auth: AuthRules::default(),
            session_timeouts: TimeoutLimits::of_tick(2000),
            outstanding_max: 1000,
            sessionless_timeout: Duration::from_secs(10),
        };
        let shared = Arc::new(shared(vec![Mailbox::new(ring.waker())], version.clone()));
        let clients = ClientCore::new(CORE, Arc::new(config), version, 0);
        let core = Core::new(CORE, ring, (clients, 0), shared, Clock::start());
        let mut world = Self { core, tree, batches: 0 };
        let peer = "127.0.0.1:40000".parse().unwrap();
        world.core.events.step(Input::Accepted(PEER, peer));
        let mut bytes = Vec::new();
        let request = ConnectRequest::new_session(10_000);
        request.write(&mut bytes);
        world.receive(&bytes);
        let kind = ReplyKind::Attached { session: SessionId(1), timeout_ms: 10_000 };
        let batch = world.publish(Some(Reply { connection: PEER, kind }));
        world.core.events.deliver(batch);
        assert_eq!(world.sends(), 1, "the session is open");
        world
    }

    /// Publishes a state behind the last one.
    fn publish(&mut self, reply: Option<Reply>) -> Arc<Batch> {
        self.batches += 1;
        let zxid = Zxid(self.batches);
        let item = Item { zxid, triggers: 0..0, reply };
        let version = self.tree.freeze_at(zxid);
        let batch = Arc::new(Batch {
            number: self.batches,
            segments: vec![Segment { items: vec![item], version }],
            effects: Effects::new(),
            replies: Vec::new(),
        });
        self.core.events.shared.publish(CORE, &batch);
        batch
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.core.events.on_received(slot_of(PEER), bytes);
    }

    /// How many frames a turn sends.
    fn sends(&mut self) -> usize {
        let Events { clients, outputs, now, .. } = &mut self.core.events;
        clients.finish_turn(*now, outputs);
        let mut outputs = std::mem::take(outputs);
        outputs.retain(|output| matches!(output, Output::Send(..)));
        for _ in &outputs {
            self.core.events.step(Input::Sent(PEER, Vec::new()));
        }
        outputs.len()
    }
}

#[test]
fn a_parked_client_is_told_of_no_state_that_was_published_later() {
    let sends = |service: Option<Service>| {
        let mut world = World::new();
        if let Some(service) = service {
            world.core.events.shared.send(CORE, ToCore::Service(service));
        }
        world.publish(None);
        let mut bytes = Vec::new();
        let header = RequestHeader { xid: Xid(1), op: OpCode::Exists.to_wire() };
        let exists = PathWatch { path: "/zookeeper".into(), watch: false };
        write_request(&mut bytes, header, |writer| exists.write(writer));
        world.receive(&bytes);
        world.sends()
    };
    assert_eq!([None, Some(Service::Parked)].map(sends), [1, 0]);
}

#[test]
fn a_collection_goes_on_until_a_turn_hears_of_nobody_new() {
    let mut world = World::new();
    let events = &mut world.core.events;
    events.begin_collection(1);
    let mut is_over_behind = |slots: &[u32]| {
        events.collecting.as_mut().expect("it is not over").goes_on = false;
        for slot in slots {
            events.on_received(Slot::new(*slot, 0), b"more");
        }
        events.answer_collection();
        events.collecting.is_none()
    };
    // Who is busy keeps nobody from being heard, and a collection not from its end.
    assert!(!is_over_behind(&[7; 50]));
    assert!(!is_over_behind(&[7, 7, 8]));
    assert!(is_over_behind(&[8, 7, 7]));
}
