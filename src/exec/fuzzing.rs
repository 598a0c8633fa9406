//! A door for the fuzzers in `integration/fuzz` to the lookup of users, which is private otherwise.

use super::user;

/// A user found: id, group, all groups, home directory.
pub type Found = (u32, u32, Vec<u32>, String);

/// Finds the user that `text` names in these texts of `/etc/passwd` and `/etc/group`; an error is a message.
pub fn find_user(passwd: &str, group: &str, text: &str) -> Result<Found, String> {
    let found = user::find_in(passwd, group, text)?;
    Ok((found.uid, found.gid, found.groups, found.home))
}
