//! AppArmor: whether the kernel has it, and the profile of the program that is executed next.

use std::io::{self, Write};
use std::path::Path;

/// Returns whether the kernel confines programs by profiles.
pub fn is_enabled() -> bool {
    says_yes(Path::new("/sys/module/apparmor/parameters/enabled"))
}

fn says_yes(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim_end() == "Y")
}

/// Puts the program that this thread executes next under a profile.
pub fn change_on_exec(profile: &str) -> io::Result<()> {
    write_exec(Path::new("/proc/thread-self/attr"), profile)
}

/// Kernels before 5.8, and ones where AppArmor is the only module, have no directory of its own.
fn write_exec(attributes: &Path, profile: &str) -> io::Result<()> {
    let own = attributes.join("apparmor/exec");
    let path = if own.exists() { own } else { attributes.join("exec") };
    // The kernel takes it in one piece.
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(format!("exec {profile}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_written_where_the_kernel_reads_it() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("exec"), "").expect("write");
        write_exec(temp.path(), "docker-default").expect("written");
        std::fs::create_dir(temp.path().join("apparmor")).expect("mkdir");
        std::fs::write(temp.path().join("apparmor/exec"), "").expect("write");
        write_exec(temp.path(), "other").expect("written");
        let read = |name: &str| std::fs::read_to_string(temp.path().join(name)).expect("read");
        assert_eq!((read("exec"), read("apparmor/exec")), ("exec docker-default".into(), "exec other".into()));
        std::fs::remove_dir_all(temp.path().join("apparmor")).expect("remove");
        std::fs::remove_file(temp.path().join("exec")).expect("remove");
        assert!(write_exec(temp.path(), "x").is_err());
    }

    #[test]
    fn it_is_on_where_the_kernel_says_so() {
        let temp = tempfile::tempdir().expect("temp dir");
        let file = temp.path().join("enabled");
        assert!(!says_yes(&file));
        for (text, expected) in [("Y\n", true), ("N\n", false), ("", false)] {
            std::fs::write(&file, text).expect("write");
            assert_eq!(says_yes(&file), expected, "{text:?}");
        }
    }
}
