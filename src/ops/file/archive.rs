//! Archives as ADD unpacks them, with the reader that layers have.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};

use super::UnpackError;
use super::owner::Owner;
use crate::layer::apply::{ApplyOptions, Form, Unmapped};
use crate::layer::archive;
use crate::sys::dir::Dir;

/// Returns whether a file is a tar archive, compressed or not.
pub fn is_archive(file: &File) -> io::Result<bool> {
    archive::is_archive(&mut &*file)
}

/// Unpacks an archive into the directory `dest` of the tree `root`; returns notices for the user.
pub fn unpack(mut file: &File, root: &Dir, dest: &OsStr, owner: Option<Owner>) -> Result<Vec<String>, UnpackError> {
    file.rewind()?;
    let owner = owner.map(|owner| (owner.uid, owner.gid));
    let options = ApplyOptions { form: Form::Plain, owner, unmapped: Unmapped::Refuse };
    let applied = archive::extract(root.reopen()?, dest, file, options)?;
    let left_out = (applied.devices > 0)
        .then(|| format!("{} device files of the archive were left out: this user may not make them", applied.devices));
    Ok(left_out.into_iter().collect())
}
