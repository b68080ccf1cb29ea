//! Requests and answers in a brief notation, for tests: a server without sockets or log.
//!
//! A request is `verb path data option=value...`, operations of a multi are separated by `; `. An
//! answer is the error's number, or what the response holds: a path, `v1 c0 a0 3B 0kids` for a
//! stat, `ok` for nothing. Every transaction is also decoded and applied to a second tree, which
//! must come to the same digest.

use crate::acl::{ALL, Acl, AclBytes, Id};
use crate::error_code::ErrorCode;
use crate::ids::{SessionId, Xid};
use crate::jute::{Reader, Writer};
use crate::op::OpCode;
use crate::permission::Verdicts;
use crate::prep::{self, WriteContext};
use crate::records::multi::MultiOp;
use crate::records::{MultiHeader, NewNodeRequest, ReplyHeader, SetAcl, SetData, VersionedPath};
use crate::rules::Rules;
use crate::time::WallTime;
use crate::tree::{Effects, OwnerMode, Tree};
use crate::txn::codec;

pub(crate) const SESSION: SessionId = SessionId(0x0100_0000_0000_0007);
const XID: Xid = Xid(42);

pub(crate) struct Script {
    pub(crate) tree: Tree,
    pub(crate) rules: Rules,
    pub(crate) ids: Vec<Id>,
    pub(crate) session: SessionId,
    pub(crate) effects: Effects,
    /// The last transaction, encoded.
    pub(crate) txn: Vec<u8>,
    /// The last reply frame.
    pub(crate) reply: Vec<u8>,
    follower: Tree,
    /// What the second tree does not do by itself.
    ignored: Effects,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::with_rules(Rules { extended_types: true, ..Rules::default() })
    }

    pub(crate) fn with_rules(rules: Rules) -> Self {
        let mut script = Self {
            tree: Tree::new(OwnerMode::Extended),
            rules,
            ids: vec![Id::new("ip", "127.0.0.1")],
            session: SESSION,
            effects: Effects::new(),
            txn: Vec::new(),
            reply: Vec::new(),
            follower: Tree::new(OwnerMode::Extended),
            ignored: Effects::new(),
        };
        script.call(|tree, context, txns, effects, _| {
            prep::create_session(tree, context, 10_000, txns, effects);
        });
        script
    }

    /// Calls a function of prep, and has the second tree follow.
    pub(crate) fn call<F>(&mut self, function: F)
    where
        F: FnOnce(&mut Tree, &WriteContext<'_>, &mut Vec<u8>, &mut Effects, &mut Vec<u8>),
    {
        let zxid = self.tree.applied().next().unwrap();
        let context = WriteContext {
            session: self.session,
            xid: XID,
            zxid,
            time: WallTime(1_700_000_000_000 + zxid.0.cast_signed()),
            ids: &self.ids,
            rules: &self.rules,
            verdicts: &Verdicts::default(),
        };
        let Self { tree, txn, effects, reply, follower, ignored, .. } = self;
        txn.clear();
        reply.clear();
        effects.clear();
        ignored.clear();
        function(tree, &context, txn, effects, reply);
        assert_eq!(tree.applied(), zxid);
        let decoded = codec::decode(txn).expect("what was encoded can be decoded");
        assert_eq!(decoded.header, context.header());
        follower.apply(&decoded.header, &decoded.txn, ignored);
        assert_eq!((follower.applied(), follower.digest()), (zxid, tree.digest()));
        assert_eq!(ignored, effects);
        if let Some((_, digest)) = decoded.digest {
            assert_eq!(digest, tree.digest());
        }
    }

    /// Executes a body as it is; what the reply's body holds, or the error.
    pub(crate) fn execute(&mut self, op: OpCode, body: &[u8]) -> Result<Vec<u8>, i32> {
        let request = match prep::decode(op, body) {
            Ok(request) => request,
            Err(error) => return Err(ErrorCode::from(error).to_wire()),
        };
        self.call(|tree, context, txns, effects, replies| {
            prep::execute(tree, context, request, txns, effects, replies);
        });
        let (len, frame) = self.reply.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*len) as usize, frame.len());
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).unwrap();
        assert_eq!((header.xid, header.zxid), (XID, self.tree.applied().to_wire()));
        match header.err {
            0 => Ok(reader.rest().to_vec()),
            err => {
                assert!(reader.is_empty(), "an error has no body");
                Err(err)
            }
        }
    }

    /// Executes a request in the notation above.
    pub(crate) fn run(&mut self, request: &str) -> String {
        let (op, body) = encode(request);
        match self.execute(op, &body) {
            Err(err) => err.to_string(),
            Ok(body) if op == OpCode::Multi => describe_multi(&mut Reader::new(&body)),
            Ok(body) => {
                let mut reader = Reader::new(&body);
                let text = describe(op, &mut reader);
                assert!(reader.is_empty(), "{request}: {body:x?}");
                text
            }
        }
    }

    /// Executes requests, each with the answer that it should get.
    #[track_caller]
    pub(crate) fn check(&mut self, steps: &[(&str, &str)]) {
        for (request, expect) in steps {
            assert_eq!(self.run(request), *expect, "{request}");
        }
    }
}

/// The type and body of a request in the notation above.
pub(crate) fn encode(request: &str) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    if let Some(ops) = request.strip_prefix("multi ") {
        for op in ops.split("; ").filter(|op| !op.is_empty()) {
            let words = Words::of(op);
            let op = match words.op {
                OpCode::Delete => MultiOp::Delete(words.versioned()),
                OpCode::Check => MultiOp::Check(words.versioned()),
                OpCode::SetData => MultiOp::SetData(words.set_data()),
                OpCode::GetData => MultiOp::GetData(words.path.into()),
                OpCode::GetChildren => MultiOp::GetChildren(words.path.into()),
                create => MultiOp::Create(create, words.new_node()),
            };
            op.write(&mut writer);
        }
        MultiHeader::END.write(&mut writer);
        return (OpCode::Multi, body);
    }
    let words = Words::of(request);
    match words.op {
        OpCode::Delete | OpCode::Check => words.versioned().write(&mut writer),
        OpCode::SetData => words.set_data().write(&mut writer),
        OpCode::SetAcl => {
            let path = words.path.into();
            let acl = words.acl.clone();
            SetAcl { path, acl, aversion: words.version }.write(&mut writer);
        }
        _ => words.new_node().write(&mut writer),
    }
    (words.op, body)
}

struct Words<'a> {
    op: OpCode,
    path: &'a str,
    data: Option<&'a [u8]>,
    acl: AclBytes<'static>,
    flags: i32,
    ttl_ms: Option<i64>,
    version: i32,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = text.split(' ');
        let op = match words.next().unwrap() {
            "create" => OpCode::Create,
            "create2" => OpCode::Create2,
            "container" => OpCode::CreateContainer,
            "ttl" => OpCode::CreateTtl,
            "delete" => OpCode::Delete,
            "set" => OpCode::SetData,
            "acl" => OpCode::SetAcl,
            "check" => OpCode::Check,
            "get" => OpCode::GetData,
            "ls" => OpCode::GetChildren,
            other => panic!("no verb: {other}"),
        };
        let path = words.next().unwrap();
        let open = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]);
        let mut parsed =
            Self { op, path, data: None, acl: open, flags: 0, ttl_ms: None, version: -1 };
        if op == OpCode::CreateTtl {
            parsed.ttl_ms = Some(-1);
        }
        for word in words {
            match word.split_once('=') {
                Some(("flags", flags)) => parsed.flags = flags.parse().unwrap(),
                Some(("ttl", ttl_ms)) => parsed.ttl_ms = Some(ttl_ms.parse().unwrap()),
                Some(("v", version)) => parsed.version = version.parse().unwrap(),
                Some(("acl", list)) => parsed.acl = parse_acl(list),
                _ => parsed.data = Some(word.as_bytes()),
            }
        }
        parsed
    }

    fn new_node(&self) -> NewNodeRequest<'a> {
        let (path, acl) = (Some(self.path.into()), self.acl.clone());
        NewNodeRequest { path, data: self.data, acl, flags: self.flags, ttl_ms: self.ttl_ms }
    }

    fn versioned(&self) -> VersionedPath<'a> {
        VersionedPath { path: self.path.into(), version: self.version }
    }

    fn set_data(&self) -> SetData<'a> {
        SetData { path: self.path.into(), data: self.data, version: self.version }
    }
}

/// `perms/scheme/id`, separated by commas.
fn parse_acl(list: &str) -> AclBytes<'static> {
    let entry = |entry: &str| {
        let mut parts = entry.splitn(3, '/');
        let perms = parts.next().unwrap().parse().unwrap();
        Acl { perms, id: Id::new(parts.next().unwrap(), parts.next().unwrap()) }
    };
    AclBytes::encode(&list.split(',').filter(|e| !e.is_empty()).map(entry).collect::<Vec<_>>())
}

fn describe_multi(reader: &mut Reader<'_>) -> String {
    let mut results = Vec::new();
    loop {
        let header = MultiHeader::read(reader).unwrap();
        if header.done {
            assert_eq!(header, MultiHeader::END);
            assert!(reader.is_empty());
            return results.join("; ");
        }
        let op = OpCode::from_wire(header.op).unwrap();
        if op == OpCode::Error {
            assert_eq!(reader.i32(), Ok(header.err));
            results.push(header.err.to_string());
        } else {
            assert_eq!(header.err, 0);
            results.push(describe(op, reader));
        }
    }
}

fn describe(op: OpCode, reader: &mut Reader<'_>) -> String {
    match op {
        OpCode::Create => reader.string("path").unwrap().into_owned(),
        OpCode::Delete | OpCode::Check => String::from("ok"),
        OpCode::SetData | OpCode::SetAcl => describe_stat(reader),
        _ => {
            let path = reader.string("path").unwrap();
            format!("{path} {}", describe_stat(reader))
        }
    }
}

/// `v` version, `c` cversion, `a` aversion, `e` if there is an owner, bytes, children.
pub(crate) fn describe_stat(reader: &mut Reader<'_>) -> String {
    reader.take(32).unwrap();
    let [version, cversion, aversion] = [(); 3].map(|()| reader.i32().unwrap());
    let owner = if reader.i64().unwrap() == 0 { "" } else { " e" };
    let [bytes, children] = [(); 2].map(|()| reader.i32().unwrap());
    reader.i64().unwrap();
    format!("v{version} c{cversion} a{aversion}{owner} {bytes}B {children}kids")
}
