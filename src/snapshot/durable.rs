//! Which layers outlive a power cut.
//!
//! In: layers as they are made, and somebody with time to wait for the disk. Out: whether what is here of a layer is what was made.
//! Files reach the disk when the kernel sees fit, names of files often earlier, so after a power cut a layer may be there whose files
//! are empty. Waiting for the disk at each layer would cost more than making it. So a layer's notes say since which start of the
//! machine it is there: until the machine stops, all see what was written. For later, [`settle`] syncs the whole file system once,
//! in a process that no build waits for, and then writes down which layers that covered. A layer of a former start of the machine
//! that is not in that list counts as gone, which costs a step and never gives a wrong file.
//!
//! ```text
//! ROOT/snapshots/settled        lines `BOOT ID ID …`: layers on disk, and the start of the machine that made them; only grows,
//!                               except under the exclusive lock. What a line lacks, or a damaged one, is a miss
//! ```

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::sync::OnceLock;

use super::{LayerId, LayerInfo, Snapshots};
use crate::store::Scratch;
use crate::sys::dir::Dir;
use crate::sys::proc;

const NAME: &str = "settled";
/// The first argument that makes this program [`settle_main`].
pub const ROLE: &str = "__settle";

type Settled = BTreeSet<(u128, LayerId)>;

/// What one process knows of it.
#[derive(Debug)]
pub(super) struct Durable {
    /// This start of the machine; none where the kernel does not tell, and then nothing is known of any other.
    boot: Option<u128>,
    /// Read when a layer of another start is met.
    settled: OnceLock<Settled>,
}

impl Durable {
    /// Takes the start of the machine from `boot`, or else from the kernel.
    pub(super) fn new(boot: Option<u128>) -> Self {
        Self { boot: boot.or_else(proc::boot_id), settled: OnceLock::new() }
    }

    /// Returns what is written into the notes of a new layer.
    pub(super) fn boot(&self) -> String {
        self.boot.map(|boot| format!("{boot:032x}")).unwrap_or_default()
    }

    /// Returns whether a layer with those notes is as it was made.
    pub(super) fn trusts(&self, folder: &Dir, layer: LayerId, info: &LayerInfo) -> bool {
        let made = parse(&info.boot);
        made == self.boot || made.is_some_and(|boot| self.settled(folder).contains(&(boot, layer)))
    }

    fn settled(&self, folder: &Dir) -> &Settled {
        self.settled.get_or_init(|| {
            load(folder).unwrap_or_else(|error| {
                tracing::info!(%error, "failed to read which layers are on disk");
                Settled::new()
            })
        })
    }
}

fn parse(boot: &str) -> Option<u128> {
    (boot.len() == 32).then(|| u128::from_str_radix(boot, 16).ok()).flatten()
}

fn load(folder: &Dir) -> io::Result<Settled> {
    let mut bytes = Vec::new();
    match folder.open_file(OsStr::new(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settled::new()),
        file => file?.read_to_end(&mut bytes)?,
    };
    let mut settled = Settled::new();
    // A line that was cut short may end in a part of a number.
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
        settled.extend(read_line(line).unwrap_or_default());
    }
    Ok(settled)
}

/// None where any of it is not as we write it.
fn read_line(line: &[u8]) -> Option<Vec<(u128, LayerId)>> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let boot = parse(words.next()?)?;
    words.map(|word| Some((boot, word.parse().ok()?))).collect()
}

fn write_line(boot: u128, layers: impl IntoIterator<Item = LayerId>) -> String {
    let layers: String = layers.into_iter().map(|layer| format!(" {layer}")).collect();
    format!("{boot:032x}{layers}\n")
}

/// Waits until all layers made since the machine started are on disk, and writes that down; returns how many that were.
pub(super) fn settle(folder: &Dir, boot: u128) -> io::Result<usize> {
    let known = load(folder)?;
    let made_now = |layer: &LayerId| {
        let notes = folder.open_dir(OsStr::new(&layer.to_string())).and_then(|dir| LayerInfo::load(&dir));
        notes.is_ok_and(|info| parse(&info.boot) == Some(boot))
    };
    let layers = folder.names()?.into_iter().filter_map(|name| name.to_str()?.parse::<LayerId>().ok());
    let new: Vec<LayerId> = layers.filter(|layer| !known.contains(&(boot, *layer))).filter(made_now).collect();
    if new.is_empty() {
        return Ok(0);
    }
    // Opened before the wait: nobody who removes the state directory meanwhile finds a new name in it.
    let mut list = folder.append_file(OsStr::new(NAME), 0o600)?;
    folder.sync_file_system()?;
    list.write_all(write_line(boot, new.iter().copied()).as_bytes())?;
    Ok(new.len())
}

/// Does what `argv[1] == "__settle"` asks for, in the folder of layers that is standard input; never returns.
pub fn settle_main() -> ! {
    // It is to outlive the terminal of the build; without a session of its own it only may not.
    let _ = proc::new_session();
    let settled = Dir::standard_input().and_then(|folder| match proc::boot_id() {
        Some(boot) => settle(&folder, boot),
        None => Ok(0),
    });
    std::process::exit(i32::from(settled.is_err()))
}

impl Snapshots {
    /// Sees to it that the layers this process made outlive a power cut, in a process of its own that is not waited for.
    pub fn settle(&self) -> io::Result<()> {
        let Some(boot) = self.durable.boot.filter(|_| self.made_any()) else { return Ok(()) };
        // Whatever the first process of a container leaves behind is killed with it.
        if proc::own_pid() == 1 {
            return settle(&self.dir, boot).map(drop);
        }
        crate::sys::child::detached(ROLE, &self.dir)
    }

    /// Forgets what is known of layers that are gone; nobody else may use the state directory.
    pub fn tidy_settled(&self) -> io::Result<()> {
        let known = load(&self.dir)?;
        let there =
            |layer: &LayerId| Ok::<_, io::Error>(self.dir.try_stat(&OsString::from(layer.to_string()))?.is_some());
        let mut text = String::new();
        for (boot, layer) in &known {
            if there(layer)? {
                text.push_str(&write_line(*boot, [*layer]));
            }
        }
        if known.is_empty() { Ok(()) } else { replace(&self.dir, self.store.scratch(), &text) }
    }
}

fn replace(folder: &Dir, scratch: &Scratch, text: &str) -> io::Result<()> {
    let name = scratch.unused();
    scratch.dir().create_file(&name, 0o600)?.write_all(text.as_bytes())?;
    scratch.dir().rename(&name, folder, OsStr::new(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_believed_whole_or_not_at_all() {
        let temp = tempfile::tempdir().expect("temp dir");
        let folder = Dir::open(temp.path()).expect("open");
        assert!(load(&folder).expect("nothing there").is_empty());
        let good = write_line(7, [LayerId(1), LayerId(23)]);
        let cases: [(&str, usize); 6] = [
            (&good, 2),
            (&format!("{good}{}", write_line(8, [LayerId(4)]).trim_end()), 2),
            (&format!("{}{good}", "\0".repeat(40)), 0),
            (&format!("{}\n{good}", "\0".repeat(40)), 2),
            ("7 1 2\n", 0),
            (&good.replace(" 23", " 2\u{0}"), 0),
        ];
        for (text, count) in cases {
            std::fs::write(temp.path().join(NAME), text).expect("write");
            assert_eq!(load(&folder).expect("read").len(), count, "{text:?}");
        }
    }
}
