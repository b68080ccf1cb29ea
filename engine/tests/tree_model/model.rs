//! The state as plain maps: `DataTree` written down again as simply as possible.

use std::collections::{BTreeMap, BTreeSet};

use engine::acl::{ALL, Acl, AclBytes, Id, READ};
use engine::error_code::ErrorCode;
use engine::ids::SessionId;
use engine::stat::{Stat, WireStat};
use engine::tree::{CONTAINER_OWNER, EventType, Outcome, ttl_owner};
use engine::txn::{NewNode, Txn, TxnHeader};
use engine::zxid::Zxid;

/// A znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) acl: Vec<u8>,
    pub(crate) stat: Stat,
    pub(crate) children: BTreeSet<String>,
}

/// What fired: the event, the path, and who may be told.
pub(crate) type Fired = (EventType, String, Vec<u8>);

/// Everything. The root's path is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) sessions: BTreeMap<i64, i32>,
    pub(crate) data_bytes: i64,
    pub(crate) fired: Vec<Fired>,
}

type Result<T> = std::result::Result<T, ErrorCode>;

const NULL_LIST: [u8; 4] = [0xff; 4];

fn open_list() -> Vec<u8> {
    world(ALL)
}

fn world(perms: i32) -> Vec<u8> {
    AclBytes::encode(&[Acl { perms, id: Id::new("world", "anyone") }]).as_bytes().to_vec()
}

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self { data_bytes: 44, ..Self::default() };
        for path in ["", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let (acl, stat) = (open_list(), Stat::default());
            let node = Node { data: Some(Vec::new()), acl, stat, children: BTreeSet::new() };
            model.nodes.insert(path.into(), node);
        }
        let mut adopt = |parent: &str, name: &str| {
            model.nodes.get_mut(parent).unwrap().children.insert(name.into());
        };
        adopt("", "zookeeper");
        adopt("/zookeeper", "config");
        adopt("/zookeeper", "quota");
        let config = model.nodes.get_mut("/zookeeper/config").unwrap();
        config.acl = world(READ);
        config.stat.aversion = -1;
        model
    }

    pub(crate) fn apply(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Outcome {
        self.fired.clear();
        let Txn::Multi(txns) = txn else { return self.apply_single(header, txn) };
        if !txns.iter().any(|txn| matches!(txn, Txn::Error(_))) {
            return Outcome::Multi(txns.iter().map(|txn| self.apply_single(header, txn)).collect());
        }
        let first = txns.iter().position(|txn| matches!(txn, Txn::Error(_))).unwrap();
        let code = |(index, txn): (usize, &Txn<'_>)| match txn {
            Txn::Error(error) => Outcome::Error(error.0),
            _ => Outcome::Error(if index < first { 0 } else { -2 }),
        };
        Outcome::Multi(txns.iter().enumerate().map(code).collect())
    }

    /// The digest, from nothing.
    pub(crate) fn digest(&self) -> u64 {
        let counted = self.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper/"));
        counted.map(|(path, node)| u64::from(node.digest(path))).fold(0, u64::wrapping_add)
    }

    /// Paths of those whose owner `is_wanted`.
    pub(crate) fn owned(&self, is_wanted: impl Fn(i64) -> bool) -> Vec<String> {
        let wanted = |(_, node): &(&String, &Node)| is_wanted(node.stat.ephemeral_owner);
        self.nodes.iter().filter(wanted).map(|(path, _)| path.clone()).collect()
    }

    fn apply_single(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Outcome {
        let result = match txn {
            Txn::Create { node, ephemeral, with_stat } => {
                let owner = if *ephemeral { header.session.0 } else { 0 };
                let result = self.create(header, node, owner);
                if result == Err(ErrorCode::NodeExists) && !with_stat {
                    let parent = node.path.rsplit_once('/').unwrap().0;
                    let stat = &mut self.nodes.get_mut(parent).unwrap().stat;
                    raise(stat, node.parent_cversion, header.zxid);
                }
                result.map(Outcome::Created)
            }
            Txn::CreateContainer { node } => {
                self.create(header, node, CONTAINER_OWNER).map(Outcome::Created)
            }
            Txn::CreateTtl { node, ttl_ms } => {
                self.create(header, node, ttl_owner(*ttl_ms).unwrap()).map(Outcome::Created)
            }
            Txn::Delete { path, .. } => self.delete(path, header.zxid).map(|()| Outcome::Deleted),
            Txn::SetData { path, data, version, .. } => {
                self.set_data(header, path, data.as_deref(), *version).map(Outcome::DataSet)
            }
            Txn::SetAcl { path, acl, aversion } => {
                let path = if path == "/" { "" } else { path };
                self.nodes.get_mut(path).ok_or(ErrorCode::NoNode).map(|node| {
                    node.acl = shown(acl.as_bytes());
                    node.stat.aversion = *aversion;
                    Outcome::AclSet(node.wire_stat())
                })
            }
            Txn::Check { .. } => Ok(Outcome::Checked),
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.session.0, *timeout_ms);
                Ok(Outcome::SessionCreated)
            }
            Txn::CloseSession { ephemerals } => {
                let listed = ephemerals.iter().flatten().map(ToString::to_string);
                let own = self.owned(|owner| owner == header.session.0);
                for path in listed.chain(own) {
                    let _gone = self.delete(&path, header.zxid);
                }
                self.sessions.remove(&header.session.0);
                Ok(Outcome::SessionClosed)
            }
            Txn::Error(error) => Ok(Outcome::Error(error.0)),
            Txn::Multi(_) => unreachable!("multis do not nest"),
        };
        result.unwrap_or_else(|code| Outcome::Error(code.to_wire()))
    }

    fn create(&mut self, header: &TxnHeader, new: &NewNode<'_>, owner: i64) -> Result<WireStat> {
        let (parent, name) = new.path.rsplit_once('/').unwrap();
        let acl = shown(new.acl.as_bytes());
        let Some(parent_node) = self.nodes.get(parent) else { return Err(ErrorCode::NoNode) };
        let parent_acl = parent_node.acl.clone();
        if let Some(node) = self.nodes.get_mut(&*new.path) {
            node.acl = acl;
            return Err(ErrorCode::NodeExists);
        }
        let parent_node = self.nodes.get_mut(parent).unwrap();
        raise(&mut parent_node.stat, new.parent_cversion, header.zxid);
        parent_node.children.insert(name.into());
        let stat = Stat {
            czxid: header.zxid,
            mzxid: header.zxid,
            pzxid: header.zxid,
            ctime_ms: header.time.0,
            mtime_ms: header.time.0,
            ephemeral_owner: owner,
            ..Stat::default()
        };
        let data = new.data.as_deref().map(<[u8]>::to_vec);
        let node = Node { data, acl: acl.clone(), stat, children: BTreeSet::new() };
        let wire_stat = node.wire_stat();
        self.data_bytes += node.bytes(&new.path);
        self.nodes.insert(new.path.to_string(), node);
        self.fire(EventType::NodeCreated, &new.path, acl);
        self.fire(EventType::NodeChildrenChanged, parent, parent_acl);
        Ok(wire_stat)
    }

    fn delete(&mut self, path: &str, zxid: Zxid) -> Result<()> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent_node = self.nodes.get_mut(parent).ok_or(ErrorCode::NoNode)?;
        parent_node.children.remove(name);
        parent_node.stat.pzxid = parent_node.stat.pzxid.max(zxid);
        let parent_acl = parent_node.acl.clone();
        let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
        let acl = node.acl.clone();
        let below = format!("{path}/");
        let is_gone = |other: &String| other == path || other.starts_with(&below);
        for gone in self.nodes.keys().filter(|other| is_gone(other)).cloned().collect::<Vec<_>>() {
            let node = self.nodes.remove(&gone).unwrap();
            self.data_bytes -= node.bytes(&gone);
        }
        self.fire(EventType::NodeDeleted, path, acl);
        self.fire(EventType::NodeChildrenChanged, parent, parent_acl);
        Ok(())
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
    ) -> Result<WireStat> {
        let path = if path == "/" { "" } else { path };
        let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        let before = node.bytes(path);
        node.data = data.map(<[u8]>::to_vec);
        node.stat.version = version;
        node.stat.mzxid = header.zxid;
        node.stat.mtime_ms = header.time.0;
        self.data_bytes += node.bytes(path) - before;
        let (acl, wire_stat) = (node.acl.clone(), node.wire_stat());
        self.fire(EventType::NodeDataChanged, path, acl);
        Ok(wire_stat)
    }

    fn fire(&mut self, event: EventType, path: &str, acl: Vec<u8>) {
        let path = if path.is_empty() { "/" } else { path };
        self.fired.push((event, path.into(), acl));
    }
}

impl Node {
    pub(crate) fn wire_stat(&self) -> WireStat {
        let num_children = self.children.len() as i32;
        let mut stat = self.stat;
        stat.cversion = stat.cversion.wrapping_mul(2).wrapping_sub(num_children);
        if stat.ephemeral_owner < 0 {
            stat.ephemeral_owner = 0;
        }
        let data_length = self.data.as_ref().map_or(0, |data| data.len() as i32);
        WireStat { stat, data_length, num_children }
    }

    fn bytes(&self, path: &str) -> i64 {
        (path.encode_utf16().count() + self.data.as_ref().map_or(0, Vec::len)) as i64
    }

    fn digest(&self, path: &str) -> u32 {
        let stat = &self.stat;
        let mut bytes = path.as_bytes().to_vec();
        bytes.extend(self.data.iter().flatten());
        for zxid in [stat.czxid, stat.mzxid, stat.pzxid] {
            bytes.extend(zxid.to_wire().to_be_bytes());
        }
        for time in [stat.ctime_ms, stat.mtime_ms] {
            bytes.extend(time.to_be_bytes());
        }
        for version in [stat.version, stat.cversion, stat.aversion] {
            bytes.extend(version.to_be_bytes());
        }
        bytes.extend(stat.ephemeral_owner.to_be_bytes());
        crc32fast::hash(&bytes)
    }
}

/// A list as readers get it.
fn shown(list: &[u8]) -> Vec<u8> {
    if list == NULL_LIST { open_list() } else { list.to_vec() }
}

fn raise(stat: &mut Stat, to: i32, zxid: Zxid) {
    let to = if to == -1 { stat.cversion.wrapping_add(1) } else { to };
    if to > stat.cversion {
        (stat.cversion, stat.pzxid) = (to, zxid);
    }
}

/// Whose transactions there are.
pub(crate) const SESSIONS: [SessionId; 3] =
    [SessionId(0x0100_0000_0000_0001), SessionId(2), SessionId(3)];
