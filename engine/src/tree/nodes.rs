//! What transactions do to znodes and sessions.

use crate::acl::{Acl, AclBytes, Id, READ};
use crate::error_code::ErrorCode;
use crate::ids::SessionId;
use crate::keyspace::{self, Key, Space, Spot};
use crate::path::{CONFIG, QUOTA, ZOOKEEPER};
use crate::stat::{Stat, WireStat};
use crate::txn::{NewNode, TxnHeader};
use crate::zxid::Zxid;

use super::owner::{Owner, OwnerKind, OwnerMode};
use super::quota::{self, Role};
use super::read;
use super::znode::{Form, Head, INLINE_DATA_BYTES_MAX};
use super::{AclId, Effects, EventType, Tree, digest, path};

impl Tree {
    /// Puts in what a tree has from the beginning.
    pub(super) fn plant(&mut self) {
        // Compat: the constructor of DataTree; stats are all zeros.
        for path in ["", ZOOKEEPER, QUOTA, CONFIG] {
            if let Some((parent, _)) = path::split(path) {
                self.change(parent, |head| head.num_children += 1);
            }
            let spot = keyspace::locate_znode(&self.store, path);
            let Spot::Vacant(key) = spot else { unreachable!("an empty map has no znode") };
            if path == CONFIG {
                self.plant_config(&key);
            } else {
                self.insert(&key, path, Stat::default(), AclId::OPEN, Some(b""));
            }
        }
        // Compat: DataTree.approximateDataSize meets the root under both its names.
        self.meta.data_bytes += 1;
    }

    fn plant_config(&mut self, key: &Key) {
        let list = AclBytes::encode(&[Acl { perms: READ, id: Id::new("world", "anyone") }]);
        let acl = self.intern(&list);
        let stat = Stat { aversion: -1, ..Stat::default() };
        self.insert(key, CONFIG, stat, acl, Some(b""));
    }

    /// Writes the configuration of the ensemble into its znode, as each server does when it
    /// starts. It is no transaction: `zxid` is the version of the configuration.
    pub fn set_ensemble_config(&mut self, text: &[u8], zxid: Zxid, time_ms: i64) {
        // Compat: ZKDatabase.initConfigInZKDatabase.
        if let Spot::Vacant(key) = keyspace::locate_znode(&self.store, CONFIG) {
            // An old server's tree. Compat: DataTree.addConfigNode.
            if self.change(ZOOKEEPER, |head| head.num_children += 1).is_none() {
                return;
            }
            self.plant_config(&key);
        }
        let written = self.write_data(CONFIG, Some(text), |stat| {
            stat.mtime_ms = time_ms;
            stat.mzxid = zxid;
            stat.version = -1;
        });
        let (_, bytes_before) = written.expect("it was put in if it was missing");
        self.meta.data_bytes += text.len() as i64 - bytes_before as i64;
    }

    pub(super) fn create(
        &mut self,
        header: &TxnHeader,
        node: &NewNode<'_>,
        owner: i64,
        effects: &mut Effects,
    ) -> Result<WireStat, ErrorCode> {
        // Compat: DataTree.createNode.
        let path = &*node.path;
        let (parent, _) = path::split(path).ok_or(ErrorCode::NoNode)?;
        let key = match keyspace::locate_znode(&self.store, path) {
            Spot::Vacant(key) => key,
            Spot::Occupied { .. } => {
                // Since 3.9.4: a fuzzy snapshot may have the znode without its list.
                let acl = self.intern(&node.acl);
                self.change(path, |head| head.acl = acl);
                return Err(ErrorCode::NodeExists);
            }
        };
        let parent_head = self.change(parent, |head| {
            raise_cversion(&mut head.stat, node.parent_cversion, header.zxid);
            head.num_children += 1;
        });
        let (parent_head, _) = parent_head.ok_or(ErrorCode::NoNode)?;
        let acl = self.intern(&node.acl);
        let stat = Stat {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime_ms: header.time.0,
            mtime_ms: header.time.0,
            ephemeral_owner: owner,
            ..Stat::default()
        };
        let data = node.data.as_deref();
        let wire_stat = self.insert(&key, path, stat, acl, data);
        match quota::role(path) {
            Role::Limits(about) => self.quotas.add(about),
            Role::Stats(about) => self.recount_quota(about),
            Role::None => {}
        }
        self.use_quota(path, data_bytes(data), 1);
        effects.push_child(EventType::NodeCreated, path, acl, parent_head.acl);
        Ok(wire_stat)
    }

    /// A create met its znode: what is left of it for the parent.
    pub(super) fn raise_parent_cversion(&mut self, header: &TxnHeader, node: &NewNode<'_>) {
        // Compat: DataTree.setCversionPzxid, which processTxn calls for type create only.
        if let Some((parent, _)) = path::split(&node.path) {
            self.change(parent, |head| {
                raise_cversion(&mut head.stat, node.parent_cversion, header.zxid);
            });
        }
    }

    pub(super) fn delete(
        &mut self,
        zxid: Zxid,
        path: &str,
        effects: &mut Effects,
    ) -> Result<(), ErrorCode> {
        // Compat: DataTree.deleteNode. The parent's pzxid is raised even if the child is gone.
        let (parent, _) = path::split(path).ok_or(ErrorCode::NoNode)?;
        let removed = self.remove(path);
        let parent_head = self.change(parent, |head| {
            head.stat.pzxid = head.stat.pzxid.max(zxid);
            head.num_children -= u32::from(removed.is_some());
        });
        let (parent_head, _) = parent_head.ok_or(ErrorCode::NoNode)?;
        let (head, bytes) = removed.ok_or(ErrorCode::NoNode)?;
        if head.num_children > 0 {
            self.remove_below(path, head.num_children);
        }
        if let Role::Limits(about) = quota::role(path) {
            self.quotas.remove(about);
        }
        self.use_quota(path, -(bytes as i64), -1);
        effects.push_child(EventType::NodeDeleted, path, head.acl, parent_head.acl);
        Ok(())
    }

    pub(super) fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        effects: &mut Effects,
    ) -> Result<WireStat, ErrorCode> {
        // Compat: DataTree.setData.
        let path = path::canonical(path);
        let (head, bytes_before) = self
            .write_data(path, data, |stat| {
                stat.mtime_ms = header.time.0;
                stat.mzxid = header.zxid;
                stat.version = version;
            })
            .ok_or(ErrorCode::NoNode)?;
        let bytes_more = data_bytes(data) - bytes_before as i64;
        self.use_quota(path, bytes_more, 0);
        self.meta.data_bytes += bytes_more;
        effects.push_data(path, head.acl);
        Ok(head.wire_stat(data.map_or(0, <[u8]>::len)))
    }

    pub(super) fn set_acl(
        &mut self,
        path: &str,
        list: &AclBytes<'_>,
        aversion: i32,
    ) -> Result<WireStat, ErrorCode> {
        // Compat: DataTree.setACL.
        let acl = self.intern(list);
        let changed = self.change(path::canonical(path), |head| {
            head.stat.aversion = aversion;
            head.acl = acl;
        });
        let (head, bytes) = changed.ok_or(ErrorCode::NoNode)?;
        Ok(head.wire_stat(bytes))
    }

    pub(super) fn create_session(&mut self, session: SessionId, timeout_ms: i32) {
        let key = keyspace::session_key(session);
        if read::session(&self.store, session).is_none() {
            self.meta.sessions += 1;
        }
        self.store.put(key.as_bytes(), &timeout_ms.to_be_bytes());
    }

    pub(super) fn close_session(
        &mut self,
        header: &TxnHeader,
        listed: Option<&[std::borrow::Cow<'_, str>]>,
        effects: &mut Effects,
    ) {
        // Compat: DataTree.killSession: first what the transaction lists, then what else is there.
        for path in listed.unwrap_or_default() {
            // One that is gone already is no fault: the snapshot was fuzzy.
            let _gone = self.delete(header.zxid, path, effects).is_err();
        }
        let mut own = Vec::new();
        let mut paths = read::ephemerals(&self.store, header.session);
        while let Some(path) = paths.next_path() {
            own.push(path.to_owned());
        }
        // Java's order is a hash set's; ours is that of paths, also of those with hashed keys.
        own.sort_unstable();
        for path in own {
            // It is gone already if it was below another ephemeral, where no leader puts one.
            let _gone = self.delete(header.zxid, &path, effects).is_err();
        }
        if read::session(&self.store, header.session).is_some() {
            self.store.delete(keyspace::session_key(header.session).as_bytes());
            self.meta.sessions -= 1;
        }
    }

    /// Counts again what each quota's subtree uses: after an import, when the numbers are those
    /// of another server.
    pub(super) fn recount_quotas(&mut self) {
        // Compat: DataTree.setupQuota.
        let quotas: Vec<String> = self.quotas.iter().map(str::to_owned).collect();
        for about in quotas {
            self.recount_quota(&about);
        }
    }

    fn recount_quota(&mut self, about: &str) {
        // Compat: DataTree.updateQuotaForPath.
        let (count, bytes) = quota::usage(&self.store.map, about);
        let mut numbers = quota::QuotaNumbers::default();
        numbers.set(count, bytes);
        self.write_quota_stats(about, &numbers);
    }

    /// Adds to what the nearest quota's subtree uses.
    fn use_quota(&mut self, path: &str, bytes_more: i64, count_more: i64) {
        // Compat: DataTree.updateQuotaStat. Numbers that are none stay as they are; Java throws.
        let Some(about) = self.quotas.nearest(path) else { return };
        let about = about.to_owned();
        let numbers = quota::load_numbers(&self.store.map, &quota::stats_path(&about));
        let Some(mut numbers) = numbers else { return };
        let count = numbers.count().wrapping_add(count_more);
        numbers.set(count, numbers.bytes().wrapping_add(bytes_more));
        self.write_quota_stats(&about, &numbers);
    }

    fn write_quota_stats(&mut self, about: &str, numbers: &quota::QuotaNumbers) {
        let path = quota::stats_path(about);
        // Missing statistics are no fault of the transaction, so nothing more is to be done.
        let _missing = self.write_data(&path, Some(numbers.to_text().as_bytes()), |_| {}).is_none();
    }

    pub(super) fn intern(&mut self, list: &AclBytes<'_>) -> AclId {
        self.acls.intern(&mut self.store, &mut self.meta.acl_newest, list)
    }

    /// Changes everything but the data. Returns the head after it, and the length of the data.
    pub(super) fn change(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut Head),
    ) -> Option<(Head, usize)> {
        let Spot::Occupied { key, value } = keyspace::locate_znode(&self.store, path) else {
            return None;
        };
        let (mut head, at) = Head::of(&key, &value);
        let data = &value[at..];
        let bytes = head.data_bytes(data);
        let prefix = head.digest_prefix(path, data);
        let before = head.digest_behind(prefix);
        change(&mut head);
        let after = head.digest_behind(prefix);
        self.meta.digest = self.meta.digest.wrapping_sub(before).wrapping_add(after);
        write(&mut self.scratch, &key, path, &head, data);
        drop(value);
        self.store.put(key.as_bytes(), &self.scratch);
        Some((head, bytes))
    }

    /// Replaces the data, and changes the stat. Returns the head after it, and the length of the
    /// data before.
    fn write_data(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        change: impl FnOnce(&mut Stat),
    ) -> Option<(Head, usize)> {
        let Spot::Occupied { key, value } = keyspace::locate_znode(&self.store, path) else {
            return None;
        };
        let (mut head, at) = Head::of(&key, &value);
        let bytes_before = head.data_bytes(&value[at..]);
        let before = head.digest(path, &value[at..]);
        drop(value);
        let was_apart = matches!(head.form, Form::Apart { .. });
        change(&mut head.stat);
        self.write_whole(&key, path, &mut head, data, was_apart);
        self.meta.digest = self.meta.digest.wrapping_sub(before);
        Some((head, bytes_before))
    }

    /// Writes a znode and its data, where the data belongs, and adds it to the digest.
    fn write_whole(
        &mut self,
        key: &Key,
        path: &str,
        head: &mut Head,
        data: Option<&[u8]>,
        was_apart: bool,
    ) {
        let (form, inline) = match data {
            None => (Form::Null, &b""[..]),
            Some(data) if data.len() <= INLINE_DATA_BYTES_MAX => (Form::Inline, data),
            Some(data) => {
                let bytes = u32::try_from(data.len()).expect("data fits its packet");
                let crc = digest::prefix(path, Some(data));
                self.store.put(key.data_key().as_bytes(), data);
                (Form::Apart { bytes, crc }, &b""[..])
            }
        };
        head.form = form;
        if was_apart && !matches!(form, Form::Apart { .. }) {
            self.store.delete(key.data_key().as_bytes());
        }
        write(&mut self.scratch, key, path, head, inline);
        self.store.put(key.as_bytes(), &self.scratch);
        self.meta.digest = self.meta.digest.wrapping_add(head.digest(path, inline));
    }

    /// Puts a new znode in, but does not tell its parent.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        path: &str,
        stat: Stat,
        acl: AclId,
        data: Option<&[u8]>,
    ) -> WireStat {
        let kind = OwnerKind::of(stat.ephemeral_owner, self.meta.mode);
        let mut head = Head { stat, kind, acl, num_children: 0, form: Form::Null };
        self.write_whole(key, path, &mut head, data, false);
        self.meta.znodes += 1;
        self.meta.data_bytes += characters(path) + data_bytes(data);
        self.index(path, head.owner());
        head.wire_stat(data.map_or(0, <[u8]>::len))
    }

    /// Takes a znode out, if it is there, but does not tell its parent. Returns what it was, and
    /// how much data it had.
    fn remove(&mut self, path: &str) -> Option<(Head, usize)> {
        let Spot::Occupied { key, value } = keyspace::locate_znode(&self.store.map, path) else {
            return None;
        };
        let (head, at) = Head::of(&key, &value);
        let data = &value[at..];
        let bytes = head.data_bytes(data);
        self.meta.digest = self.meta.digest.wrapping_sub(head.digest(path, data));
        drop(value);
        if matches!(head.form, Form::Apart { .. }) {
            self.store.delete(key.data_key().as_bytes());
        }
        self.store.delete(key.as_bytes());
        self.meta.znodes -= 1;
        self.meta.data_bytes -= characters(path) + bytes as i64;
        self.unindex(path, head.owner());
        Some((head, bytes))
    }

    /// Takes out everything below a znode that is gone.
    ///
    /// Only the replay of a fuzzy snapshot deletes a znode with children: they are of a later
    /// life of it, and creates for them follow. Java keeps them, out of reach, until then.
    fn remove_below(&mut self, path: &str, children_count: u32) {
        let mut pending = vec![(path.to_owned(), children_count)];
        while let Some((parent, count)) = pending.pop() {
            let mut names = Vec::new();
            let mut children = read::children_of(&self.store, &parent, count);
            while let Some(name) = children.next_name() {
                names.push(name.to_owned());
            }
            for name in names {
                let path = format!("{parent}/{name}");
                let (head, _) = self.remove(&path).expect("children exist");
                if let Role::Limits(about) = quota::role(&path) {
                    self.quotas.remove(about);
                }
                if head.num_children > 0 {
                    pending.push((path, head.num_children));
                }
            }
        }
    }

    fn index(&mut self, path: &str, owner: Owner) {
        let Some(prefix) = index_prefix(owner) else { return };
        let spot = keyspace::locate_indexed(&self.store, prefix, path);
        let Spot::Vacant(key) = spot else { unreachable!("a new znode is not in an index") };
        let value = if keyspace::is_hashed(&key) { path.as_bytes() } else { b"" };
        self.store.put(key.as_bytes(), value);
        self.meta.ephemerals += u64::from(matches!(owner, Owner::Ephemeral(_)));
    }

    fn unindex(&mut self, path: &str, owner: Owner) {
        let Some(prefix) = index_prefix(owner) else { return };
        let spot = keyspace::locate_indexed(&self.store, prefix, path);
        let Spot::Occupied { key, value } = spot else { unreachable!("the index knows it") };
        drop(value);
        self.store.delete(key.as_bytes());
        self.meta.ephemerals -= u64::from(matches!(owner, Owner::Ephemeral(_)));
    }

    /// Decodes all owners again.
    pub(super) fn change_mode(&mut self, mode: OwnerMode) {
        self.meta.mode = mode;
        let mut pending = vec![String::new()];
        while let Some(parent) = pending.pop() {
            let mut kind = OwnerKind::Persistent;
            let before = self.change(&parent, |head| {
                kind = std::mem::replace(
                    &mut head.kind,
                    OwnerKind::of(head.stat.ephemeral_owner, mode),
                );
            });
            let (head, _) = before.expect("children exist");
            if kind != head.kind {
                self.unindex(&parent, kind.with(head.stat.ephemeral_owner));
                self.index(&parent, head.owner());
            }
            let mut children = read::children_of(&self.store, &parent, head.num_children);
            while let Some(name) = children.next_name() {
                pending.push(format!("{parent}/{name}"));
            }
        }
    }
}

/// Where a znode of this owner is indexed.
fn index_prefix(owner: Owner) -> Option<Key> {
    match owner {
        Owner::Persistent => None,
        Owner::Ephemeral(session) => Some(keyspace::ephemerals_prefix(session)),
        Owner::Container => Some(Key::new(Space::Container)),
        Owner::Ttl(_) => Some(Key::new(Space::Ttl)),
    }
}

/// A create's effect on its parent's counters. They never go back: the replay of a fuzzy
/// snapshot brings old creates.
fn raise_cversion(stat: &mut Stat, to: i32, zxid: Zxid) {
    let to = if to == -1 { stat.cversion.wrapping_add(1) } else { to };
    if to > stat.cversion {
        stat.cversion = to;
        stat.pzxid = zxid;
    }
}

/// Encodes a value into `scratch`.
fn write(scratch: &mut Vec<u8>, key: &Key, path: &str, head: &Head, inline_data: &[u8]) {
    scratch.clear();
    if key.is_long_znode() {
        keyspace::push_stored_path(path, scratch);
    }
    head.encode(scratch);
    scratch.extend_from_slice(inline_data);
}

fn data_bytes(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| data.len() as i64)
}

/// The length of a path to Java: 16-bit characters.
fn characters(path: &str) -> i64 {
    let characters = if path.is_ascii() { path.len() } else { path.encode_utf16().count() };
    characters as i64
}
