//! Read: answers to requests that change nothing, from one version of the state.
//!
//! Each answer is one whole reply frame, appended to the connection's output; in front of the
//! answer to setWatches come the events that were missed. Watches go to a table of the caller's.
//!
//! Invariants:
//!
//!   * a request that fails leaves no watch, but for exists of a znode that is not there
//!   * a request that fails appends nothing but its error

mod identity;
mod multi;
#[cfg(test)]
mod tests;
mod watching;
mod znodes;

use crate::acl::{Id, READ};
use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::ids::{SessionId, Xid};
use crate::jute::{Reader, Writer};
use crate::op::OpCode;
use crate::permission::Verdicts;
use crate::records::{self, Modes, begin_reply};
use crate::rules::Rules;
use crate::tree::{self, Znode};
use crate::zxid::Zxid;

/// Who asks, and what the answer's header says.
#[derive(Clone, Copy, Debug)]
pub struct ReadContext<'a> {
    /// The session.
    pub session: SessionId,
    /// The client's number for the request.
    pub xid: Xid,
    /// Who the connection was when it sent the request.
    pub ids: &'a [Id],
    /// The last transaction that the client's server has processed.
    pub last_zxid: Zxid,
    /// The server's settings.
    pub rules: &'a Rules,
    /// What the request has found out, and what it took.
    pub verdicts: &'a Verdicts,
}

/// The watches of one connection.
pub trait Watches {
    /// Adds `modes` on `path`.
    fn add(&mut self, modes: Modes, path: &str);

    /// Removes those of `modes` that there are on `path`; whether there were any.
    fn remove(&mut self, modes: Modes, path: &str) -> bool;

    /// Whether there is one of `modes` on `path`.
    fn contains(&self, modes: Modes, path: &str) -> bool;
}

impl ReadContext<'_> {
    /// Appends a good reply whose body `write` writes.
    fn reply(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
        let mut writer = Writer::new(out);
        let frame = begin_reply(&mut writer, self.xid, self.last_zxid.to_wire(), 0);
        write(&mut writer);
        writer.end_part(frame);
    }

    /// The same, unless it would be too long.
    ///
    // Java's server makes it, or runs out of memory; a client takes no more than jute.maxbuffer.
    fn try_reply(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Writer<'_>, usize) -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let start = out.len();
        let end = start + self.rules.answer_bytes_max();
        let mut written = Ok(());
        self.reply(out, |writer| written = write(writer, end));
        if written.is_err() {
            self.give_up(out, start);
        }
        written
    }

    /// Takes back an answer that is too long.
    fn give_up(&self, out: &mut Vec<u8>, start: usize) {
        self.verdicts.spend(out.len() - start);
        out.truncate(start);
    }

    /// Appends a reply without a body.
    fn reply_bare(&self, out: &mut Vec<u8>, err: i32) {
        records::write_bare_reply(out, self.xid, self.last_zxid.to_wire(), err);
    }

    /// The znode, if it is there and the connection may read it.
    fn find<'a, V: View>(&self, view: &'a V, path: &str) -> Result<Znode<'a>, ErrorCode> {
        let znode = tree::znode(view, path).ok_or(ErrorCode::NoNode)?;
        self.demand(view, &znode, READ)?;
        Ok(znode)
    }

    /// Fails unless the connection may do one of `perms` to the znode.
    fn demand<V: View>(&self, view: &V, znode: &Znode<'_>, perms: i32) -> Result<(), ErrorCode> {
        if self.verdicts.may(view, self.rules, znode.acl(), perms, self.ids) {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }
}

/// Answers a request of type `op`.
///
// Compat: FinalRequestProcessor.processRequest
pub fn answer<V: View>(
    view: &V,
    context: &ReadContext<'_>,
    op: OpCode,
    body: &[u8],
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) {
    let reader = &mut Reader::new(body);
    let result = match op {
        OpCode::GetData => znodes::get_data(view, context, reader, watches, out),
        OpCode::Exists => znodes::exists(view, context, reader, watches, out),
        OpCode::GetChildren => znodes::get_children(view, context, reader, watches, out),
        OpCode::GetChildren2 => znodes::get_children2(view, context, reader, watches, out),
        OpCode::GetAcl => znodes::get_acl(view, context, reader, out),
        OpCode::GetAllChildrenNumber => znodes::get_all_children_number(view, context, reader, out),
        OpCode::MultiRead => multi::multi_read(view, context, body, out),
        OpCode::SetWatches => watching::set_watches(view, context, reader, false, watches, out),
        OpCode::SetWatches2 => watching::set_watches(view, context, reader, true, watches, out),
        OpCode::AddWatch => watching::add_watch(context, reader, watches, out),
        OpCode::CheckWatches => watching::check_watches(context, reader, watches, out),
        OpCode::RemoveWatches => watching::remove_watches(context, reader, watches, out),
        OpCode::GetEphemerals => identity::get_ephemerals(view, context, reader, out),
        OpCode::WhoAmI => {
            identity::who_am_i(context, out);
            Ok(())
        }
        OpCode::Ping => {
            // Compat: the answer's xid is that of pings, whatever the client sent.
            let zxid = context.last_zxid.to_wire();
            records::write_bare_reply(out, records::PING_XID, zxid, 0);
            Ok(())
        }
        _ => Err(ErrorCode::Unimplemented),
    };
    if let Err(code) = result {
        context.reply_bare(out, code.to_wire());
    }
}
