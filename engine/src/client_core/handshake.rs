//! Opening a session or attaching to one.

use std::sync::Arc;
use std::time::Duration;

use super::ClientCore;
use super::connection::Phase;
use crate::auth;
use crate::ids::SessionId;
use crate::order::{Connect, Order};
use crate::records::{ConnectRequest, ConnectResponse};
use crate::session::SessionPassword;
use crate::time::Instant;

impl ClientCore {
    /// Takes the first packet of a connection.
    ///
    // Compat: ZooKeeperServer.processConnectRequest
    pub(super) fn take_connect(
        &mut self,
        now: Instant,
        slot: u32,
        frame: &[u8],
    ) -> Result<(), String> {
        let request =
            ConnectRequest::decode(frame).map_err(|err| format!("not a ConnectRequest: {err}"))?;
        self.stats.connect_requests += 1;
        self.stats.reconnect_requests += u64::from(request.session != SessionId::NONE);
        let seen = request.last_zxid_seen;
        let ours = self.version.zxid();
        if seen > ours.to_wire() {
            return Err(format!(
                "the client has seen zxid {seen:#x}, ours is {ours}; it must try another server"
            ));
        }
        let connection = self.connections[slot as usize].as_deref_mut().expect("it sent this");
        connection.phase = Phase::Connecting;
        connection.read_only_byte = request.read_only.map(|_| false);
        connection.ids = Arc::new([auth::ip::id_of(connection.peer)]);
        self.submission.orders.push(Order::Connect(Connect {
            connection: connection.id,
            session: request.session,
            genuine: SessionPassword::opens(request.session, request.password),
            timeout_ms: self.config.session_timeouts.negotiate(request.timeout_ms),
        }));
        connection.last_heard = now;
        self.connecting += 1;
        Ok(())
    }

    /// The session is open and this connection attached to it.
    pub(super) fn on_attached(
        &mut self,
        now: Instant,
        slot: u32,
        session: SessionId,
        timeout_ms: i32,
    ) {
        let connection = self.connection_at(slot);
        let waited = std::mem::replace(&mut connection.phase, Phase::Attached);
        connection.session = Some(session);
        connection.timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let password = SessionPassword::of(session);
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session,
            password: password.as_bytes(),
            read_only: connection.read_only_byte,
        };
        response.write(&mut connection.output);
        connection.stats.sent += 1;
        self.connecting -= usize::from(waited == Phase::Connecting);
        self.stats.packets_sent += 1;
        self.mark_dirty(slot);
        self.touch(now, slot);
        // What came in behind the ConnectRequest has waited for this.
        if !self.connection_at(slot).input.is_empty() {
            self.held.insert(slot);
        }
    }

    /// There is no such session, or the password is not its own.
    pub(super) fn on_refused(&mut self, slot: u32) {
        let connection = self.connection_at(slot);
        ConnectResponse::refusal(connection.read_only_byte).write(&mut connection.output);
        connection.closing = true;
        self.held.remove(&slot);
        self.stats.packets_sent += 1;
        self.mark_dirty(slot);
    }
}
