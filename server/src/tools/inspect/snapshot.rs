//! Our snapshots: the superblock, the checks of all blocks, and then what is in the tree.

use std::io::{self, Write};

use engine::btree::{Map, View};
use engine::snapshot::{Snapshot, SnapshotError};
use engine::stat::Stat;
use engine::tree::{self, AclId, ExportCursor, Owner};

use super::line::{Line, Lines};
use super::txn::acl_value;
use super::{InspectError, Options, Source};
use crate::disk::removal;

/// Shows a snapshot. The tree of a damaged one is not looked at: its pages can't be relied on.
pub(super) fn show(
    source: &Source,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    if let Err(error) = removal::keep_whole(&source.file) {
        return Ok(lines.no_access(&source.path, 0, &error.to_string())?);
    }
    let snapshot = match Snapshot::open(&source.file) {
        Ok(snapshot) => snapshot,
        Err(error) => return damage(&error, lines),
    };
    let mut line = Line::new("superblock");
    line.hex("zxid", snapshot.zxid().0);
    line.number("pages", snapshot.pages());
    line.number("root", snapshot.root());
    line.number("blocks", snapshot.blocks());
    lines.write(&line)?;
    let mut is_whole = true;
    for block in 0..snapshot.blocks() {
        let (offset, length) = snapshot.block_place(block);
        if let Err(error) = snapshot.check_bytes(block, &source.bytes_at(offset, length)?) {
            damage(&error, lines)?;
            is_whole = false;
        }
    }
    if !is_whole {
        return Ok(());
    }
    let map = Map::open(snapshot);
    show_state(&map, lines)?;
    if options.summary {
        return Ok(());
    }
    show_sessions(&map, lines)?;
    show_acls(&map, lines)?;
    show_znodes(&map, options, lines)
}

fn damage(error: &SnapshotError, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    Ok(lines.damage(error.offset(), &error.to_string())?)
}

fn show_state(map: &Map, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    let Some(mode) = tree::owner_mode(map) else {
        return Ok(lines.damage(0, "the map holds no state that this version can read")?);
    };
    let counters = tree::counters(map);
    let mut line = Line::new("state");
    line.hex("digest", tree::digest(map));
    line.number("znodes", counters.znode_count);
    line.number("data_bytes", counters.data_bytes);
    line.number("ephemerals", counters.ephemerals_count);
    line.number("sessions", counters.sessions_count);
    line.text("owners", &format!("{mode:?}"));
    Ok(lines.write(&line)?)
}

fn show_sessions(view: &impl View, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    let mut sessions = tree::sessions(view);
    while let Some((session, timeout_ms)) = sessions.next_session() {
        lines.write(&session_line(session.0, timeout_ms))?;
    }
    Ok(())
}

pub(super) fn session_line(session: i64, timeout_ms: i32) -> Line {
    let mut line = Line::new("session");
    line.hex("session", session.cast_unsigned());
    line.number("timeout_ms", timeout_ms);
    line
}

fn show_acls(view: &impl View, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    let mut lists = tree::acl_lists(view);
    while let Some((id, list)) = lists.next_list() {
        let mut line = Line::new("acl");
        line.number("acl", id.0);
        line.value("list", acl_value(&list));
        lines.write(&line)?;
    }
    Ok(())
}

fn show_znodes(
    view: &impl View,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let mut result: io::Result<()> = Ok(());
    ExportCursor::new().visit(view, |path, data, acl, stat| {
        let acl = if acl == AclId::OPEN { -1 } else { i64::from(acl.0) };
        let mut line = znode_line(path, data, acl, stat, options);
        let znode = tree::znode(view, path).filter(|_| stat.ephemeral_owner != 0);
        match znode.map(|znode| znode.owner()) {
            None | Some(Owner::Persistent) => {}
            Some(Owner::Ephemeral(_)) => line.text("type", "ephemeral"),
            Some(Owner::Container) => line.text("type", "container"),
            Some(Owner::Ttl(ttl_ms)) => line.number("ttl_ms", ttl_ms),
        }
        result = lines.write(&line);
        result.is_ok()
    });
    Ok(result?)
}

/// A znode of a snapshot of either format; the list -1 is the open one.
pub(super) fn znode_line(
    path: &str,
    data: Option<&[u8]>,
    acl: i64,
    stat: &Stat,
    options: Options,
) -> Line {
    let mut line = Line::new("znode");
    line.text("path", if path.is_empty() { "/" } else { path });
    line.data(data, options.data);
    line.number("acl", acl);
    line.hex("czxid", stat.czxid.0);
    line.hex("mzxid", stat.mzxid.0);
    line.hex("pzxid", stat.pzxid.0);
    line.number("ctime_ms", stat.ctime_ms);
    line.number("mtime_ms", stat.mtime_ms);
    line.number("version", stat.version);
    line.number("cversion", stat.cversion);
    line.number("aversion", stat.aversion);
    line.hex("owner", stat.ephemeral_owner.cast_unsigned());
    line
}
