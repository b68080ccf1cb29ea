//! Names of ZooKeeper's files, and which of them a recovery reads.

use crate::zxid::Zxid;

/// How a snapshot is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`.
    Gzip,
    /// `.snappy`, in the stream format of snappy-java.
    Snappy,
}

impl Compression {
    /// What ends the name of a file that is packed so.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Snappy => ".snappy",
        }
    }
}

/// What a name in `version-2` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// A snapshot.
    Snapshot {
        /// Nothing up to this one is missing in it.
        zxid: Zxid,
        /// From the last part of the name.
        compression: Compression,
    },
    /// A transaction log.
    Log {
        /// Its first transaction's, or a smaller one.
        zxid: Zxid,
    },
}

impl FileName {
    /// Reads a name; none if it is another file's.
    pub fn parse(name: &str) -> Option<Self> {
        // Compat: Util.getZxidFromName, SnapStream.getStreamMode.
        let mut parts = name.split('.');
        let prefix = parts.next()?;
        let zxid = i64::from_str_radix(parts.next()?, 16).ok()?;
        let zxid = Zxid::from_wire(zxid)?;
        let compression = match name.rsplit('.').next()? {
            last if last.eq_ignore_ascii_case("gz") => Compression::Gzip,
            last if last.eq_ignore_ascii_case("snappy") => Compression::Snappy,
            _ => Compression::None,
        };
        match prefix {
            "snapshot" => Some(Self::Snapshot { zxid, compression }),
            "log" => Some(Self::Log { zxid }),
            _ => None,
        }
    }

    /// The name of a snapshot.
    pub fn snapshot(zxid: Zxid, compression: Compression) -> String {
        format!("snapshot.{:x}{}", zxid.0, compression.suffix())
    }
}

/// The files of a data directory, sorted for a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Snapshots, newest first: the first one that can be read is taken.
    pub snapshots: Vec<(String, Zxid, Compression)>,
    /// Logs, oldest first.
    pub logs: Vec<(String, Zxid)>,
}

impl Selection {
    /// Sorts `names`; what is neither snapshot nor log is left out.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut selection = Self::default();
        for name in names {
            match FileName::parse(name) {
                Some(FileName::Snapshot { zxid, compression }) => {
                    selection.snapshots.push((name.to_owned(), zxid, compression));
                }
                Some(FileName::Log { zxid }) => selection.logs.push((name.to_owned(), zxid)),
                None => {}
            }
        }
        selection.snapshots.sort_by_key(|(_, zxid, _)| std::cmp::Reverse(*zxid));
        selection.logs.sort_by_key(|(_, zxid)| *zxid);
        selection
    }

    /// The logs to replay on a snapshot of `zxid`: the last one that begins before the next
    /// transaction, and all after it.
    pub fn logs_after(&self, zxid: Zxid) -> &[(String, Zxid)] {
        // Compat: FileTxnIterator.init.
        let after = self.logs.partition_point(|(_, first)| *first <= zxid);
        &self.logs[after.saturating_sub(1)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expect: Option<FileName>) {
        assert_eq!(FileName::parse(name), expect, "{name}");
    }

    #[test]
    fn names_say_what_files_are() {
        let snapshot =
            |zxid, compression| Some(FileName::Snapshot { zxid: Zxid(zxid), compression });
        check("snapshot.0", snapshot(0, Compression::None));
        check("snapshot.10000000a", snapshot(0x1_0000_000a, Compression::None));
        check("snapshot.ff.gz", snapshot(0xff, Compression::Gzip));
        check("snapshot.ff.snappy", snapshot(0xff, Compression::Snappy));
        check("snapshot.ff.tmp", snapshot(0xff, Compression::None));
        check("log.1", Some(FileName::Log { zxid: Zxid(1) }));
        for name in ["snapshot", "log", "snapshot.x", "log.-1", "acceptedEpoch", "", "xlog.1"] {
            check(name, None);
        }
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let name = FileName::snapshot(Zxid(0x1_0000_000a), compression);
            check(&name, snapshot(0x1_0000_000a, compression));
        }
    }

    #[test]
    fn a_recovery_reads_the_log_around_the_snapshot_and_all_after_it() {
        let names = ["log.1", "snapshot.0", "log.64", "x", "snapshot.32.gz", "log.c8"];
        let selection = Selection::of(names);
        let newest: Vec<u64> = selection.snapshots.iter().map(|(_, zxid, _)| zxid.0).collect();
        assert_eq!(newest, [0x32, 0]);
        let logs = |zxid| -> Vec<&str> {
            let logs = selection.logs_after(Zxid(zxid));
            logs.iter().map(|(name, _)| name.as_str()).collect()
        };
        assert_eq!(logs(0), ["log.1", "log.64", "log.c8"]);
        assert_eq!(logs(0x63), ["log.1", "log.64", "log.c8"]);
        assert_eq!(logs(0x64), ["log.64", "log.c8"]);
        assert_eq!(logs(0x1000), ["log.c8"]);
        assert_eq!(Selection::of([]).logs_after(Zxid(5)), []);
    }
}
