//! Who owns what a tool makes: a service with a user of its own must be able to open what root has
//! made for it. Where anybody else runs the tool, there is nothing to do, and nothing is done.
//!
//! Whoever owns a directory may change it meanwhile. So nothing is reached through a symbolic
//! link in it: each entry is found from the open directory that it is in.

use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, Uid, chownat, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::geteuid;

use crate::disk::volume::missing;
use crate::snapshots::sync_directory;

/// Makes a directory and those above it that are missing, each for the owner of the one around it.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    for (path, parent) in missing(path) {
        fs::create_dir(path)?;
        give(path, parent)?;
        sync_directory(parent)?;
    }
    Ok(())
}

/// Gives what is at `path`, and all below, to the owner of `model`.
pub(super) fn give(path: &Path, model: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let model = fs::metadata(model)?;
    let owner = Owner(Uid::from_raw(model.uid()), Gid::from_raw(model.gid()));
    path.into_with_c_str(|name| owner.take(CWD, name))?;
    Ok(())
}

struct Owner(Uid, Gid);

impl Owner {
    fn take(&self, folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        let Self(user, group) = *self;
        let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // Not every file system can do it, and where all is well already it need not.
        if (found.st_uid, found.st_gid) != (user.as_raw(), group.as_raw()) {
            chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match openat(folder, name, flags, Mode::empty()) {
            // A file, or a link to somewhere.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            folder => folder?,
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                self.take(folder.as_fd(), entry.file_name())?;
            }
        }
        Ok(())
    }
}

/// What to do about an error, if it is that of a user who may not do something at `path`.
pub(super) fn remedy<'a>(path: &'a Path, error: &'a io::Error) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        // Of what is missing, or cannot even be looked at, the directory around it decides.
        let found = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
        let own = geteuid().as_raw();
        match found {
            Some((place, metadata))
                if error.kind() == io::ErrorKind::PermissionDenied && metadata.uid() != own =>
            {
                let (place, owner) = (place.display(), metadata.uid());
                write!(f, "; {place} belongs to user {owner}, and this is user {own}: ")?;
                f.write_str("run it as that one, or as root")
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn who_may_not_do_something_is_told_who_may() {
        let directory = tempfile::tempdir().unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let own = geteuid();
        assert_eq!(remedy(directory.path(), &denied).to_string(), "", "it is the own one");
        // Somebody else's: root makes it so, anybody else has the root directory.
        let (place, owner) =
            if own.is_root() { (directory.path(), 41_234) } else { ("/".as_ref(), 0) };
        if own.is_root() {
            chown(place, Some(owner), None).unwrap();
        }
        let missing = place.join("not/there");
        let (place, own) = (place.display(), own.as_raw());
        let expected = format!(
            "; {place} belongs to user {owner}, and this is user {own}: run it as that one, or as \
             root"
        );
        assert_eq!(remedy(&missing, &denied).to_string(), expected);
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(remedy(&missing, &other).to_string(), "");
    }
}
