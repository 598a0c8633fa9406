//! Ends an export that runs on a blocking thread: its next read or write fails, and on the way out it removes what it began.
//!
//! In: a request from another thread, such as the one that takes signals. Out: errors of kind `Other`, because `Interrupted`
//! would be tried again.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Blobs;
use crate::digest::Digest;

/// Whether exports shall stop; copies share the answer.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Makes a switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops all exports that have this switch.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Fails once a stop was requested.
    pub fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("the build was stopped")) } else { Ok(()) }
    }

    /// Returns the same layers, which fail to be read once a stop was requested.
    pub fn blobs<B: Blobs>(&self, blobs: B) -> impl Blobs + use<B> {
        StoppableBlobs { blobs, stop: self.clone() }
    }

    /// Returns a writer that fails once a stop was requested.
    pub fn writer<W: Write>(&self, inner: W) -> impl Write + use<W> {
        Stoppable { inner, stop: self.clone() }
    }
}

struct StoppableBlobs<B> {
    blobs: B,
    stop: Stop,
}

impl<B: Blobs> Blobs for StoppableBlobs<B> {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.stop.check()?;
        Ok(Box::new(Stoppable { inner: self.blobs.open(digest)?, stop: self.stop.clone() }))
    }

    fn reject(&self, digest: &Digest) {
        self.blobs.reject(digest);
    }
}

struct Stoppable<T> {
    inner: T,
    stop: Stop,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.read(buffer)
    }
}

impl<W: Write> Write for Stoppable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::export::archive::{self, Archive};
    use crate::export::destination::OutputFile;
    use crate::export::image::tests::single;
    use crate::export::layout;
    use crate::export::spec::ArchiveFormat;
    use crate::sys::dir::Dir;

    /// A layer in whose middle somebody presses Ctrl-C.
    struct Pressed(Stop);

    impl Blobs for Pressed {
        fn open(&self, _: &Digest) -> io::Result<Box<dyn Read + Send>> {
            self.0.request();
            Ok(Box::new(&b"layer"[..]))
        }
    }

    fn names(path: &Path) -> Vec<std::ffi::OsString> {
        Dir::open(path).and_then(|dir| dir.names()).expect("names")
    }

    #[test]
    fn a_stopped_export_leaves_nothing() {
        let temp = tempfile::tempdir().expect("temp dir");
        let image = single(b"layer");
        let path = temp.path().join("out.tar");
        let stop = Stop::new();
        let mut file = OutputFile::create(&path).expect("create");
        let archive = Archive { image: &image, names: &[], format: ArchiveFormat::Oci };
        let result = archive::write(&archive, &stop.blobs(Pressed(stop.clone())), &mut file, &path);
        drop(file);
        assert!(result.is_err() && names(temp.path()).is_empty());

        let stop = Stop::new();
        let dest = temp.path().join("layout");
        assert!(layout::write(&image, &[], &stop.blobs(Pressed(stop.clone())), &dest).is_err());
        assert!(names(&dest.join("blobs/sha256")).is_empty() && !dest.join("index.json").exists());
        assert!(stop.writer(Vec::new()).write_all(b"x").is_err());
    }
}
