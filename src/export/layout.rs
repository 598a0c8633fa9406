//! An image in an OCI layout directory, beside others that are there already.
//!
//! ```text
//! DEST/oci-layout
//! DEST/index.json              replaced whole, under the lock
//! DEST/index.json.lock         flock'ed while index.json changes, then removed
//! DEST/blobs/sha256/HEX…       0444
//! ```
//!
//! Invariants: `index.json` points only to blobs that are there; an entry of another name stays; a name that is exported
//! again moves to the end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::archive::{self, Verified};
use super::destination::{self, Missing, OutputFile};
use super::image::Image;
use super::sweep::Writing;
use super::{Blobs, ExportError, tarball};
use crate::digest::{Digest, Hasher};
use crate::image::layout::{IMAGE_NAME, MARKER, MARKER_CONTENT, REF_NAME};
use crate::image::{Descriptor, Index, Reference, canonical, media};
use crate::sys::dir::{self, Dir, Kind};

/// Largest `index.json` that is read.
const INDEX_LIMIT: u64 = 16 << 20;

/// Writes an image into the layout at `dest`, which is made if it is not there.
pub fn write(image: &Image, names: &[Reference], blobs: &dyn Blobs, dest: &Path) -> Result<(), ExportError> {
    write_entries(image, archive::named(image, names), blobs, dest)
}

/// What must lie under a tag for it to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// Anything.
    Any,
    /// This, or nothing at all.
    Only(Option<Digest>),
}

/// Writes what has the shape of an image under a bare tag, in place of the former of that tag. Returns whether it was: it is
/// not where something else than `over` lies there, such as what another process wrote meanwhile.
///
/// Blobs that lie there are not read, unless there are `suspects`: then these and the image's are, as one is seldom damaged alone,
/// and those that are damaged are written again.
pub fn write_tagged(
    image: &Image,
    (tag, over): (&str, &Over),
    (blobs, suspects): (&dyn Blobs, &BTreeSet<Digest>),
    dest: &Path,
) -> Result<bool, ExportError> {
    if !suspects.is_empty() {
        let layers = image.layers().into_iter().map(|(layer, _)| layer.digest.clone());
        remove_damaged(&suspects.iter().cloned().chain(layers).collect(), dest)?;
    }
    let mut entry = image.root.descriptor.clone();
    entry.annotations.insert(REF_NAME.into(), tag.to_owned());
    let as_expected = |index: &Index| match over {
        Over::Any => true,
        Over::Only(digest) => {
            let tagged = |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag);
            index.manifests.iter().rfind(tagged).map(|entry| &entry.digest) == digest.as_ref()
        }
    };
    write_when(image, vec![entry], (blobs, dest), as_expected)
}

/// A layout into which content from elsewhere is put piece by piece, and named at last.
#[derive(Debug)]
pub struct LayoutWriter {
    root: Dir,
    dest: PathBuf,
    _writing: Writing,
}

impl LayoutWriter {
    /// Opens the layout at `dest`, which is made if it is not there.
    pub fn open(dest: &Path) -> Result<Self, ExportError> {
        let root = destination::open_directory(dest, Missing::Create)?;
        Ok(Self { root, dest: dest.to_owned(), _writing: Writing::start(dest)? })
    }

    fn layout(&self) -> Layout<'_> {
        Layout { root: &self.root, dest: &self.dest }
    }

    /// Returns whether a blob is there.
    pub fn has(&self, blob: &Descriptor) -> Result<bool, ExportError> {
        let layout = self.layout();
        layout.has(&layout.blob_dir(&blob.digest)?, &blob.digest, blob.size)
    }

    /// Writes a blob, which has its name only if it is what its descriptor says.
    pub fn put(&self, blob: &Descriptor, content: impl Read + Send + 'static) -> Result<(), ExportError> {
        self.layout().put_layer(blob, &Once(Mutex::new(Some(Box::new(content)))))
    }

    /// Writes a document.
    pub fn put_document(&self, bytes: &[u8]) -> Result<(), ExportError> {
        self.layout().put(&Digest::compute(bytes), bytes)
    }

    /// Lists what is there already, under a tag in place of the former of that tag.
    pub fn name(&self, entry: &Descriptor, tag: Option<&str>) -> Result<(), ExportError> {
        let layout = self.layout();
        let lock = Lock::take(&layout)?;
        layout.mark()?;
        let mut index = layout.read_index()?;
        let mut entry = entry.clone();
        if let Some(tag) = tag {
            entry.annotations.insert(REF_NAME.into(), tag.to_owned());
            index.manifests.retain(|old| old.annotations.get(REF_NAME).is_none_or(|name| name != tag));
        }
        layout.replace("index.json", &canonical::to_vec(&merged(index, vec![entry])))?;
        drop(lock);
        Ok(())
    }
}

/// Content that can be read once.
struct Once(Mutex<Option<Box<dyn Read + Send>>>);

impl Blobs for Once {
    fn open(&self, _digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        content.ok_or_else(|| io::Error::other("it was read already"))
    }

    fn reject(&self, _digest: &Digest) {}
}

/// Removes those of some blobs of a layout that are not what their digest says.
fn remove_damaged(suspects: &BTreeSet<Digest>, dest: &Path) -> Result<(), ExportError> {
    let root = destination::open_directory(dest, Missing::Create)?;
    let layout = Layout { root: &root, dest };
    for digest in suspects {
        let (dir, name) = (layout.blob_dir(digest)?, OsStr::new(digest.hex()));
        let Ok(file) = dir.open_file(name) else { continue };
        let mut hasher = Hasher::new();
        let mut reader = io::BufReader::with_capacity(1 << 20, file);
        loop {
            let piece = reader.fill_buf().map_err(ExportError::write(dest))?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            hasher.update(piece);
            reader.consume(length);
        }
        if hasher.finish() != *digest {
            tracing::info!("removing {digest} from {}: it has other content than its digest says", dest.display());
            dir.unlink(name).map_err(ExportError::write(dest))?;
        }
    }
    Ok(())
}

/// Removes the blobs of a layout that its index does not lead to, unless somebody writes there; returns whether it did.
pub fn sweep(dest: &Path) -> Result<bool, ExportError> {
    let root = destination::open_directory(dest, Missing::Create)?;
    Writing::start(dest)?.sweep(&root, dest)
}

fn write_entries(image: &Image, entries: Vec<Descriptor>, blobs: &dyn Blobs, dest: &Path) -> Result<(), ExportError> {
    write_when(image, entries, (blobs, dest), |_| true).map(drop)
}

fn write_when(
    image: &Image,
    entries: Vec<Descriptor>,
    (blobs, dest): (&dyn Blobs, &Path),
    as_expected: impl FnOnce(&Index) -> bool,
) -> Result<bool, ExportError> {
    let root = destination::open_directory(dest, Missing::Create)?;
    let layout = Layout { root: &root, dest };
    let _writing = Writing::start(dest)?;
    for (layer, _) in image.layers() {
        layout.put_layer(layer, blobs)?;
    }
    for document in image.documents() {
        layout.put(&document.descriptor.digest, &document.bytes)?;
    }
    let lock = Lock::take(&layout)?;
    layout.mark()?;
    let index = layout.read_index()?;
    let is_expected = as_expected(&index);
    if is_expected {
        layout.replace("index.json", &canonical::to_vec(&merged(index, entries)))?;
    }
    drop(lock);
    Ok(is_expected)
}

/// Adds entries, in place of those of the same name, or of the same content where they have none.
fn merged(mut index: Index, entries: Vec<Descriptor>) -> Index {
    let name = |d: &Descriptor| (d.annotations.get(IMAGE_NAME).cloned(), d.annotations.get(REF_NAME).cloned());
    for entry in entries {
        let is_named = name(&entry) != (None, None);
        index.manifests.retain(|old| name(old) != name(&entry) || (!is_named && old.digest != entry.digest));
        index.manifests.push(entry);
    }
    index
}

struct Layout<'a> {
    root: &'a Dir,
    dest: &'a Path,
}

impl Layout<'_> {
    fn blob_dir(&self, digest: &Digest) -> Result<Dir, ExportError> {
        let blobs = self.subdirectory(self.root, "blobs")?;
        self.subdirectory(&blobs, digest.algorithm())
    }

    fn subdirectory(&self, dir: &Dir, name: &str) -> Result<Dir, ExportError> {
        let name = OsStr::new(name);
        match dir.make_dir(name, 0o755) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ExportError::write(self.dest.join(name))(error));
            }
            _ => {}
        }
        dir.open_dir(name).map_err(ExportError::write(self.dest.join(name)))
    }

    /// A blob of the right size is taken to be there: its name is its digest, and half ones never get their name.
    fn has(&self, dir: &Dir, digest: &Digest, size: u64) -> Result<bool, ExportError> {
        let stat = dir.try_stat(OsStr::new(digest.hex())).map_err(ExportError::write(self.dest))?;
        Ok(stat.is_some_and(|stat| stat.kind() == Kind::File && stat.size == size))
    }

    /// Documents are small, so a damaged one is not taken for granted.
    fn holds(&self, dir: &Dir, digest: &Digest, bytes: &[u8]) -> bool {
        let mut held = Vec::new();
        let read = dir.open_file(OsStr::new(digest.hex()));
        read.and_then(|file| file.take(bytes.len() as u64 + 1).read_to_end(&mut held)).is_ok() && held == bytes
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ExportError> {
        let dir = self.blob_dir(digest)?;
        if self.has(&dir, digest, bytes.len() as u64)? && self.holds(&dir, digest, bytes) {
            return Ok(());
        }
        let shown = self.dest.join(archive::blob_path(digest));
        let mut file = OutputFile::create_in(&dir, OsStr::new(digest.hex()), &shown)?;
        file.write_all(bytes).map_err(ExportError::write(&shown))?;
        self.seal(file)
    }

    fn put_layer(&self, layer: &Descriptor, blobs: &dyn Blobs) -> Result<(), ExportError> {
        let dir = self.blob_dir(&layer.digest)?;
        if self.has(&dir, &layer.digest, layer.size)? {
            return Ok(());
        }
        let shown = self.dest.join(archive::blob_path(&layer.digest));
        let mut file = OutputFile::create_in(&dir, OsStr::new(layer.digest.hex()), &shown)?;
        let mut source = Verified::open(layer, blobs)?;
        let copied = tarball::copy(&mut source, layer.size, &mut file).map(drop);
        source.finish(copied, &shown)?;
        self.seal(file)
    }

    fn seal(&self, file: OutputFile) -> Result<(), ExportError> {
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        file.file().set_permissions(readable).map_err(ExportError::write(file.path()))?;
        file.commit()
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let shown = self.dest.join(name);
        let mut file = OutputFile::create_in(self.root, OsStr::new(name), &shown)?;
        file.write_all(bytes).map_err(ExportError::write(&shown))?;
        file.commit()
    }

    /// Writes the file that says what the directory is, if there is none.
    fn mark(&self) -> Result<(), ExportError> {
        match self.root.try_stat(OsStr::new(MARKER)).map_err(ExportError::write(self.dest))? {
            Some(_) => Ok(()),
            None => self.replace(MARKER, MARKER_CONTENT),
        }
    }

    fn read_index(&self) -> Result<Index, ExportError> {
        let path = self.dest.join("index.json");
        let empty = Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.into()),
            manifests: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
        };
        let file = match self.root.open_file(OsStr::new("index.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty),
            file => file.map_err(ExportError::write(&path))?,
        };
        let mut bytes = Vec::new();
        file.take(INDEX_LIMIT).read_to_end(&mut bytes).map_err(ExportError::write(&path))?;
        if bytes.is_empty() {
            return Ok(empty);
        }
        serde_json::from_slice(&bytes).map_err(|error| ExportError::Destination {
            path,
            problem: format!("it is not an OCI image index ({error}); choose another directory, or remove it"),
        })
    }
}

/// Holds `index.json.lock`.
struct Lock<'a> {
    root: &'a Dir,
    _file: File,
}

const LOCK_NAME: &str = "index.json.lock";

impl<'a> Lock<'a> {
    fn take(layout: &Layout<'a>) -> Result<Self, ExportError> {
        let (name, shown) = (OsStr::new(LOCK_NAME), layout.dest.join(LOCK_NAME));
        loop {
            let file = match layout.root.create_file(name, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match layout.root.open_file(name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file,
                },
                file => file,
            };
            let file = file.map_err(ExportError::write(&shown))?;
            file.lock().map_err(ExportError::write(&shown))?;
            // Whoever held it before has removed it: then this lock is of a file nobody else will find.
            let own = dir::stat_of(&file).map_err(ExportError::write(&shown))?;
            let there = layout.root.try_stat(name).map_err(ExportError::write(&shown))?;
            if there.is_some_and(|stat| (stat.dev, stat.ino) == (own.dev, own.ino)) {
                return Ok(Self { root: layout.root, _file: file });
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A lock file that stays is taken over by the next writer.
        let _ = self.root.unlink(OsStr::new(LOCK_NAME));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::archive::tests::Memory;
    use crate::export::image::tests::single;

    fn export(dest: &Path, content: &[u8], name: &str) -> Result<(), ExportError> {
        let blobs = Memory([(Digest::compute(content), content.to_vec())].into());
        let names: Vec<Reference> = name.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().expect(n)).collect();
        write(&single(content), &names, &blobs, dest)
    }

    fn entries(dest: &Path) -> Vec<(Option<String>, Digest)> {
        let index: Index =
            serde_json::from_slice(&std::fs::read(dest.join("index.json")).expect("read")).expect("index");
        index.manifests.iter().map(|m| (m.annotations.get(REF_NAME).cloned(), m.digest.clone())).collect()
    }

    #[test]
    fn keeps_other_entries_and_replaces_its_own() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dest = temp.path().join("new/layout");
        let digest = |content: &[u8]| single(content).root.descriptor.digest;
        export(&dest, b"one", "app:1").expect("first");
        export(&dest, b"two", "app:2").expect("second");
        export(&dest, b"three", "app:1").expect("third");
        let tagged = |tag: &str, content: &[u8]| (Some(tag.to_owned()), digest(content));
        assert_eq!(entries(&dest), [tagged("2", b"two"), tagged("1", b"three")]);
        export(&dest, b"two", "").expect("nameless");
        export(&dest, b"two", "").expect("nameless again");
        assert_eq!(entries(&dest).len(), 3);
        for (_, digest) in entries(&dest) {
            let bytes = std::fs::read(dest.join(archive::blob_path(&digest))).expect("blob");
            assert_eq!(Digest::compute(bytes), digest);
        }
        let names = Dir::open(&dest).and_then(|dir| dir.names()).expect("names");
        assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
    }

    #[test]
    fn what_no_name_leads_to_is_swept_unless_somebody_writes() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dest = temp.path();
        let blobs = || Dir::open(&dest.join("blobs/sha256")).and_then(|dir| dir.names()).expect("names").len();
        for (content, name) in [(b"one", "app:1"), (b"two", "app:1"), (b"six", "app:2")] {
            export(dest, content, name).expect("export");
        }
        let all = blobs();
        let writer = Writing::start(dest).expect("shared");
        assert_eq!((sweep(dest).expect("sweep"), blobs()), (false, all));
        drop(writer);
        assert_eq!((sweep(dest).expect("sweep"), blobs()), (true, all - 3));
        let (_, manifest) = entries(dest).remove(0);
        std::fs::remove_file(dest.join(archive::blob_path(&manifest))).expect("remove");
        assert!(sweep(dest).is_err());
        assert_eq!(blobs(), all - 4, "what cannot be followed is no reason to remove");
    }

    #[test]
    fn damaged_blobs_are_written_again() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (dest, content) = (temp.path(), b"one".to_vec());
        let image = single(&content);
        let layer = Digest::compute(&content);
        let blobs = Memory([(layer.clone(), content)].into());
        let write = |suspects: &[&Digest]| {
            let suspects = suspects.iter().map(|digest| (*digest).clone()).collect();
            write_tagged(&image, ("cache", &Over::Any), (&blobs, &suspects), dest).expect("write")
        };
        write(&[]);
        let path = |digest: &Digest| dest.join(archive::blob_path(digest));
        let spoil = |digest: &Digest| {
            let length = std::fs::read(path(digest)).expect("read").len();
            std::fs::remove_file(path(digest)).expect("remove");
            std::fs::write(path(digest), vec![b'x'; length]).expect("write");
        };
        let is_sound = |digest: &Digest| Digest::compute(std::fs::read(path(digest)).expect("read")) == *digest;
        let documents: Vec<Digest> = image.documents().iter().map(|d| d.descriptor.digest.clone()).collect();
        documents.iter().chain([&layer]).for_each(&spoil);
        write(&[]);
        assert!(documents.iter().all(&is_sound), "documents are compared");
        assert!(!is_sound(&layer), "layers are not read for nothing");
        write(&[&Digest::compute("not there")]);
        assert!(is_sound(&layer));
    }

    #[test]
    fn writers_at_once_lose_no_entry() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dest = temp.path();
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || export(dest, format!("layer {number}").as_bytes(), &format!("app:{number}")));
            }
        });
        assert_eq!(entries(dest).len(), 8);
        assert!(!dest.join(LOCK_NAME).exists());
    }

    #[test]
    fn t12_links_inside_the_layout_are_not_followed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let outside = temp.path().join("outside");
        std::fs::create_dir(&outside).expect("mkdir");
        std::fs::write(outside.join("canary"), "untouched").expect("write");
        let dest = temp.path().join("dest");
        for (link, target) in
            [("blobs", "../outside"), ("index.json", "../outside/canary"), ("index.json.lock", "/etc/hostname")]
        {
            std::fs::create_dir_all(&dest).expect("mkdir");
            std::os::unix::fs::symlink(target, dest.join(link)).expect("symlink");
            assert!(export(&dest, b"one", "app:1").is_err(), "{link}");
            std::fs::remove_dir_all(&dest).expect("remove");
        }
        assert_eq!(std::fs::read(outside.join("canary")).expect("read"), b"untouched");
        assert_eq!(Dir::open(&outside).and_then(|dir| dir.names()).expect("names"), ["canary"]);
    }

    #[test]
    fn t11_a_foreign_index_json_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("index.json"), r#"{"manifests":[{"digest":"../../x"}]}"#).expect("write");
        let error = export(temp.path(), b"one", "app:1").expect_err("not an index");
        assert!(matches!(error, ExportError::Destination { .. }), "{error}");
    }
}
