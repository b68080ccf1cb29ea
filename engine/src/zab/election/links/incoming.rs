//! Connections that others dial: who they say they are, and their messages.

use crate::ids::{LinkId, ServerId};
use crate::jute::DecodeError;
use crate::time::Instant;
use crate::zab::hello::{ANONYMOUS, Hello};
use crate::zab::link::LinkOp;

use super::{
    CROSSING, Dial, GREETINGS_MAX, Heard, Link, Links, MESSAGE_BYTES_MAX, Peer, STRANGERS_MAX,
};

impl Links {
    pub(super) fn on_accepted(&mut self, now: Instant, link: LinkId, out: &mut Vec<LinkOp>) {
        let greeting = |link: &(&LinkId, &Link)| matches!(link.1, Link::Greeting { .. });
        if self.links.iter().filter(greeting).count() >= GREETINGS_MAX {
            let oldest = self.links.iter().find(greeting).map(|(id, _)| *id);
            self.close(oldest.expect("there are some"), out);
        }
        let deadline = now.after(self.connect_timeout);
        self.links.insert(link, Link::Greeting { received: Vec::new(), deadline });
    }

    pub(super) fn on_received(
        &mut self,
        now: Instant,
        link: LinkId,
        bytes: &[u8],
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        match self.links.get_mut(&link) {
            // Nobody speaks on a connection that it is about to close.
            None | Some(Link::Dialled(_)) => return,
            Some(Link::Greeting { received, .. }) => {
                received.extend_from_slice(bytes);
                match Hello::decode(received) {
                    Ok(hello) => {
                        received.drain(..hello.bytes);
                        self.on_hello(now, link, hello.id, heard, out);
                    }
                    Err(DecodeError::UnexpectedEnd { .. }) => return,
                    Err(error) => {
                        tracing::warn!("election: closing, no initial message: {error}");
                        return self.close(link, out);
                    }
                }
            }
            Some(Link::Open { received, .. }) => received.extend_from_slice(bytes),
        }
        if let Some(Link::Open { peer, received, .. }) = self.links.get_mut(&link)
            && let Err(length) = take_messages(*peer, received, heard)
        {
            tracing::warn!(server = %peer, length, "election: closing, no message is so long");
            let id = *peer;
            self.close(link, out);
            self.on_lost(now, id);
        }
    }

    /// The other side of an accepted link has said who it is.
    fn on_hello(
        &mut self,
        now: Instant,
        link: LinkId,
        id: ServerId,
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        let strangers = self.peers.values().filter(|peer| !peer.is_member).count();
        if id == self.me {
            tracing::warn!(server = %id, "election: closing, another server has our id");
            self.close(link, out);
        } else if id == ANONYMOUS || (id > self.me && !self.peers.contains_key(&id)) {
            if strangers >= STRANGERS_MAX {
                tracing::warn!(server = %id, "election: closing, too many unknown servers");
                return self.close(link, out);
            }
            let mut known_as = id;
            if id == ANONYMOUS {
                known_as = self.next_anonymous;
                self.next_anonymous = ServerId(known_as.0 - 1);
            }
            self.peers.insert(known_as, Peer::new(false, false));
            self.open(now, link, known_as, heard, out);
        } else if id > self.me {
            self.open(now, link, id, heard, out);
        } else {
            self.close(link, out);
            self.dial_back(now, id, out);
        }
    }

    /// A server with a smaller id has no connection to us.
    fn dial_back(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_member) else {
            tracing::warn!(server = %id, "election: closing, no member has this id");
            return;
        };
        if matches!(peer.dial, Dial::Running { .. }) {
            return;
        }
        if let Some(open) = peer.open {
            let crossed = match &self.links[&open] {
                Link::Open { since, .. } => now.since(*since) < CROSSING,
                Link::Greeting { .. } | Link::Dialled(_) => unreachable!("it is open"),
            };
            if crossed {
                return;
            }
            peer.open = None;
            self.close(open, out);
        }
        self.dial(now, id, out);
    }
}

/// Takes the whole messages out of what has come; the error is a length that no message has.
fn take_messages(
    peer: ServerId,
    received: &mut Vec<u8>,
    heard: &mut Vec<Heard>,
) -> Result<(), i32> {
    let mut taken = 0;
    while let Some((prefix, rest)) = received[taken..].split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*prefix);
        let bytes = usize::try_from(length).unwrap_or(0);
        if bytes == 0 || bytes > MESSAGE_BYTES_MAX {
            return Err(length);
        }
        let Some(payload) = rest.get(..bytes) else { break };
        heard.push(Heard::Message(peer, payload.to_vec()));
        taken += 4 + bytes;
    }
    received.drain(..taken);
    Ok(())
}
