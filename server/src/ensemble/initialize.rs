//! The file `initialize`: its operator's word that a server is empty because it is new, so that an
//! ensemble may begin with it.
//!
//! It counts once. A server that would find it again after it has lost its data would vote as one
//! that never had any, and could help to elect a leader that lacks what it had acknowledged. So
//! what it permits is first made durable with the data, to be lost with it; then it is removed,
//! and only then anybody is told of a vote. A crash in between leaves it to the next start.

use std::fs;
use std::io;
use std::path::PathBuf;

use engine::disk::StorageError;

use crate::config::Config;
use crate::snapshots::sync_directory;

/// The name of the file.
pub const NAME: &str = "initialize";

/// The file, in one directory or in two.
#[derive(Debug)]
pub struct Mark {
    paths: Vec<PathBuf>,
}

impl Mark {
    /// Looks for it: ZooKeeper's script puts it into `dataDir`, and its server looks for it in
    /// `dataLogDir`.
    ///
    // Compat: zkServer-initialize.sh, FileTxnSnapLog.restore
    pub fn find(config: &Config) -> Option<Self> {
        let directories = [&config.data_dir, &config.data_log_dir];
        let mut paths: Vec<_> = directories.iter().map(|directory| directory.join(NAME)).collect();
        paths.dedup();
        paths.retain(|path| path.exists());
        (!paths.is_empty()).then_some(Self { paths })
    }

    /// Removes it for good; what it permits must be durable already. A server that cannot do this
    /// must not go on.
    pub fn remove(self) -> Result<(), StorageError> {
        for path in &self.paths {
            let failed =
                |action, error| StorageError::io(path.display().to_string(), action, &error);
            match fs::remove_file(path) {
                // The two directories are one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed.map_err(|error| failed("remove", error))?,
            }
            let directory = path.parent().expect("a directory was joined with the name");
            sync_directory(directory).map_err(|error| failed("sync the removal of", error))?;
            tracing::info!("{} is removed: it counts once", path.display());
        }
        Ok(())
    }
}
